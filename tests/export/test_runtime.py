"""Loading ONNX Runtime leaves nothing behind and sends nothing: no identity of the machine, no records of use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

USES = {
    "the coordinator": "import export.sessions",
    "the board": """
from edge_agent.serving.session import open_session
from wire.errors import WireError
try:
    open_session(b"no model", {})
except WireError as exc:
    assert exc.code == "E-MODEL-LOAD", exc
""",
}


@pytest.mark.parametrize("use", USES)
def test_a_fresh_home_stays_empty(use, tmp_path):
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    places = {"HOME": str(home), "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(home / "cache")}
    subprocess.run([sys.executable, "-c", USES[use]], check=True, env=kept | places, timeout=60)
    assert [*home.rglob("*"), *temporary.rglob("*")] == []
