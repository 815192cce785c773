"""What the agent's wheel costs a board without torch: megabytes on disk and distributions in a fresh environment."""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.result import Figure, Result, at_most

__all__ = ["run"]

BUILD = Path(__file__).parent.parent / "scripts" / "build-agent"
NOT_OURS = {"pip", "setuptools"}


def run(options: Sequence[str]) -> Result:
    """Builds the wheel, installs it, and counts; needs pip's index."""
    argparse.ArgumentParser(prog="scripts/bench install").parse_args(options)
    with tempfile.TemporaryDirectory(prefix="bitfleet-install-") as folder:
        return _measure(Path(folder))


def _measure(folder: Path) -> Result:
    home = folder / "venv"
    venv.create(home, with_pip=True)
    bare_bytes = _file_bytes(home)
    _call(BUILD, folder)
    _call(home / "bin" / "pip", "install", "--quiet", next(folder.glob("bitfleet_agent-*.whl")))
    listed = _call(home / "bin" / "pip", "list", "--format", "json", "--disable-pip-version-check")
    names = sorted({each["name"] for each in json.loads(listed)} - NOT_OURS)
    _call(home / "bin" / "bitfleet-agent", "--help")
    whole_mb = _file_bytes(home) / 1e6
    figures: dict[str, Figure] = {
        "environment_mb": whole_mb,
        "bare_environment_mb": bare_bytes / 1e6,
        "environment_on_disk_mib": _disk_bytes(home) / 2**20,
        "distributions": len(names),
        "names": ", ".join(names),
    }
    return Result(figures, (at_most("environment_mb", 120, whole_mb), at_most("distributions", 8, len(names))))


def _file_bytes(folder: Path) -> int:
    """Returns the sum of the files' sizes, pip and setuptools included; links count for themselves."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def _disk_bytes(folder: Path) -> int:
    """Returns what they take up in whole blocks, as `du` counts it; that depends on the file system."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def _call(*command: object) -> str:
    """Returns what a command printed; raises with what it complained about."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout
