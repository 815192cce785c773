"""What a coordinator's ledger says while it runs and afterwards."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from coordinator.state.database import open_database
from wire.errors import StateError

__all__ = ["Line", "await_published", "ledger", "published_s"]

Line = Mapping[str, Any]

_LONGEST_S = 600.0


def ledger(home: Path) -> list[Line]:
    """Returns the newest run's lines; none while there is no run."""
    try:
        database = open_database(home / "fleet.sqlite", read_only=True)
    except StateError:
        return []  # the coordinator has not made it yet
    try:
        row = database.row("SELECT run FROM runs ORDER BY created DESC LIMIT 1")
        return list(database.ledger(row["run"])) if row else []
    finally:
        database.close()


def published_s(lines: list[Line]) -> list[float]:
    """Returns when each round was published, in order."""
    return [line["at"] for line in lines if line["event"] == "phase" and line["phase"] == "published"]


def await_published(
    home: Path, coordinator: subprocess.Popen[bytes], count: int, meanwhile: Callable[[], object] = lambda: None
) -> int:
    """Returns how many rounds are published once there are `count`; raises if the coordinator ends before."""
    ends_s = time.monotonic() + _LONGEST_S
    while (found := len(published_s(ledger(home)))) < count:
        if coordinator.poll() is not None and len(published_s(ledger(home))) < count:
            raise RuntimeError(f"the coordinator ended ({coordinator.returncode}) after {found} rounds: see its log")
        if time.monotonic() > ends_s:
            raise RuntimeError(f"{found} rounds in {_LONGEST_S:.0f} s, waiting for {count}")
        meanwhile()
        time.sleep(0.02)
    return found
