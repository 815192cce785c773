from __future__ import annotations

import sys
from contextlib import suppress

from wire.events import log_event


def test_one_line_an_event(capsys):
    log_event("plan", run="run-1", reason="two words", nothing="")
    assert capsys.readouterr().err.split(" ", 1)[1] == "event=plan run=run-1 reason='two words' nothing=''\n"


def test_a_log_on_a_full_disk_ends_nobody(monkeypatch):
    full = open("/dev/full", "w")  # noqa: PTH123, SIM115 - closing it fails, too
    try:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", full)
            log_event("plan")
    finally:
        with suppress(OSError):
            full.close()
