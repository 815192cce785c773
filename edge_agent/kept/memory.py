"""What a device keeps from one round of a run to the next: one file a round, named RUN.ROUND.FATE.memory.

pending   the round's update is not settled yet
accepted  its receipt says that it counts
refused   its receipt says that it does not
spoiled   its receipt says that its values can be no right ones: what it wanted must not come again

The child writes a pending file before the update appears in the outbox; the resident renames it on the receipt. So the
child of the next round knows what became of the last update, and a round that is done again starts from the file
before its own. An update that was never sent left no receipt: its file stays pending and counts as refused.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["MEMORY", "Kept", "mark_newest", "memory_path", "newest_memory", "prune_memory", "settle_memory"]

_NAME = re.compile(r"(?P<run>[a-z0-9-]+)\.(?P<round>[0-9]{1,10})\.(?P<fate>pending|accepted|refused|spoiled)\.memory")
MEMORY = "memory"
_MOST_RUNS = 4
_LATER_S = 2  # what every file system tells apart


@dataclass(frozen=True, slots=True)
class Kept:
    """One file of the memory."""

    run: str
    round: int
    fate: str
    path: Path


def memory_path(folder: Path, run: str, number: int, fate: str = "pending") -> Path:
    """Returns where the memory after a round belongs."""
    return folder / f"{run}.{number}.{fate}.memory"


def mark_newest(path: Path) -> None:
    """Makes a file's time later than that of all others: the order in which runs were used, also without a clock."""
    latest_s = max((kept.path.stat().st_mtime for kept in _listed(path.parent) if kept.path != path), default=0.0)
    if path.stat().st_mtime < latest_s + _LATER_S:
        os.utime(path, (latest_s + _LATER_S, latest_s + _LATER_S))


def settle_memory(folder: Path, run: str, number: int, fate: str) -> None:
    """Renames a round's pending memory to what became of its update; without one there is nothing to do."""
    pending = memory_path(folder, run, number)
    if pending.exists():
        pending.replace(memory_path(folder, run, number, fate))


def newest_memory(folder: Path, run: str, before: int) -> Kept | None:
    """Returns the memory that round `before` of a run starts from, or None."""
    own = [kept for kept in _listed(folder) if kept.run == run and kept.round < before]
    return max(own, key=lambda kept: kept.round, default=None)


def prune_memory(folder: Path, run: str, number: int) -> None:
    """Deletes what no round from `number` on starts from, and the memory of all but this run and the newest others."""
    keep = newest_memory(folder, run, number)
    for kept in _listed(folder):
        if kept.run == run and keep and kept.round < keep.round:
            kept.path.unlink(missing_ok=True)
    others = [other for other in _runs(folder) if other != run]
    for kept in _listed(folder):
        if kept.run in others[: 1 - _MOST_RUNS]:
            kept.path.unlink(missing_ok=True)


def _runs(folder: Path) -> list[str]:
    """Returns the runs that have a memory, that of the newest file last."""
    stamped = sorted((kept.path.stat().st_mtime, kept.run) for kept in _listed(folder))
    return list(dict.fromkeys(run for _, run in reversed(stamped)))[::-1]


def _listed(folder: Path) -> list[Kept]:
    named = ((_NAME.fullmatch(path.name), path) for path in sorted(folder.glob("*.memory")))
    return [Kept(name["run"], int(name["round"]), name["fate"], path) for name, path in named if name]
