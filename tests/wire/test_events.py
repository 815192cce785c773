from __future__ import annotations

import sys
from contextlib import suppress
from datetime import datetime, timedelta, timezone

from wire.events import log_event


def test_one_line_an_event(capsys):
    log_event("plan", run="run-1", reason="two words", nothing="")
    when, line = capsys.readouterr().err.split(" ", 1)
    assert line == "event=plan run=run-1 reason='two words' nothing=''\n"
    assert abs(datetime.now(timezone.utc) - datetime.strptime(when, "%Y-%m-%dT%H:%M:%S%z")) < timedelta(hours=1)


def test_a_log_on_a_full_disk_ends_nobody(monkeypatch):
    full = open("/dev/full", "w")  # noqa: PTH123, SIM115 - closing it fails, too
    try:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stderr", full)
            log_event("plan")
    finally:
        with suppress(OSError):
            full.close()
