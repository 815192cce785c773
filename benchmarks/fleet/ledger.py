"""What a coordinator's ledger says while it runs and afterwards."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.fleet.processes import Fleet
from coordinator.state.database import Database, open_database
from wire.errors import StateError

__all__ = ["Line", "await_published", "ledger", "published_s"]

Line = Mapping[str, Any]

_LONGEST_S = 300.0


def ledger(home: Path) -> list[Line]:
    """Returns the newest run's lines; none while there is no run."""
    with _database(home) as database:
        row = database and database.row("SELECT run FROM runs ORDER BY rowid DESC LIMIT 1")
        return list(database.ledger(row["run"])) if database and row else []


def published_s(lines: list[Line]) -> list[float]:
    """Returns when each round was published, in order."""
    return [line["at"] for line in lines if line["event"] == "phase" and line["phase"] == "published"]


def await_published(
    place: Fleet, coordinator: subprocess.Popen[bytes], count: int, meanwhile: Callable[[], object] = lambda: None
) -> int:
    """Returns how many rounds are published once there are `count`; raises if somebody ends before."""
    ends_s = time.monotonic() + _LONGEST_S
    while (found := _published(place.home)) < count:
        if coordinator.poll() is not None and _published(place.home) < count:
            raise RuntimeError(f"the coordinator ended ({coordinator.returncode}) after {found} rounds: see its log")
        if time.monotonic() > ends_s:
            raise RuntimeError(f"{found} rounds in {_LONGEST_S:.0f} s, waiting for {count}")
        place.check()
        meanwhile()
        time.sleep(0.05)
    return found


def _published(home: Path) -> int:
    with _database(home) as database:
        row = database and database.row("SELECT count(*) AS n FROM rounds WHERE state = 'published'")
        return int(row["n"]) if row else 0


@contextmanager
def _database(home: Path) -> Iterator[Database | None]:
    try:
        database = open_database(home / "fleet.sqlite", read_only=True)
    except StateError:
        yield None  # the coordinator has not made it yet
        return
    try:
        yield database
    finally:
        database.close()
