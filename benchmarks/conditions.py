"""What a figure depends on beside the code: when, which commit, which versions, which machine, how busy it was."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["conditions"]

ROOT = Path(__file__).parent.parent
_NO_CODE = (":(exclude)benchmarks/results", ":(exclude)docs", ":(exclude)*.md")  # results are stored as they come


def conditions() -> dict[str, Any]:
    """Returns the conditions of this moment; None stands for what could not be found out."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "numpy": _installed("numpy"),
        "torch": _installed("torch"),
        "iotcore": _installed("iotcore"),
        "mosquitto": _mosquitto(),
        "cpu": _cpu(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "kernel": platform.release(),
    }


def _commit() -> str | None:
    """Returns the commit, and whether any file but results and documents is other than there."""
    head = _said("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    changed = _said("git", "-C", str(ROOT), "status", "--porcelain", "--", ".", *_NO_CODE)
    return f"{head} with changes" if head and changed else head


def _mosquitto() -> str | None:
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    said = binary and _said(binary, "-h", status_matters=False)
    return said.splitlines()[0].removeprefix("mosquitto version ") if said else None


def _cpu() -> str | None:
    board = Path("/proc/device-tree/model")
    if board.exists():
        return board.read_text().rstrip("\0")
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _said(*command: str, status_matters: bool = True) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if status_matters and done.returncode else done.stdout.strip()
