"""Updates that the coordinator has not settled yet, one file each, named RUN.ROUND.DIGEST.update.

A file appears by one rename and leaves on the coordinator's receipt, never on the broker's word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge_agent.kept.aside import set_aside
from wire.errors import said_by
from wire.events import log_event
from wire.pieces.assembly import digest_file, sweep_drafts

__all__ = ["Entry", "entries", "entry_path", "left_behind", "listed", "remove"]

_NAME = re.compile(r"(?P<run>[a-z0-9-]+)\.(?P<round>[0-9]{1,10})\.(?P<digest>[0-9a-f]{64})\.update")


@dataclass(frozen=True, slots=True)
class Entry:
    """One update on disk."""

    run: str
    round: int
    digest: str
    path: Path
    size: int


def entry_path(folder: Path, run: str, number: int, digest: str) -> Path:
    """Returns where an update belongs."""
    return folder / f"{run}.{number}.{digest}.update"


def entries(folder: Path) -> list[Entry]:
    """Returns the updates whose bytes are what their name says; any other file is moved aside.

    What cannot be read now stays for the next start.
    """
    found = []
    for path in sorted(folder.glob("*.update")):
        name = _NAME.fullmatch(path.name)
        try:
            whole = name is not None and digest_file(path) == name["digest"]
        except OSError as exc:
            log_event("outbox-unreadable", file=path.name, reason=said_by(exc))
            continue
        if name is None or not whole:
            set_aside(path)
            continue
        found.append(Entry(name["run"], int(name["round"]), name["digest"], path, path.stat().st_size))
    return found


def listed(folder: Path) -> list[Entry]:
    """Returns the updates by their names alone: reads no bytes and moves nothing, while an agent may be at work."""
    found = []
    for path in sorted(folder.glob("*.update")):
        if name := _NAME.fullmatch(path.name):
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                continue  # settled in this moment
            found.append(Entry(name["run"], int(name["round"]), name["digest"], path, size))
    return found


def left_behind(folder: Path, run: str, number: int, told: tuple[str, int] | None = None) -> Entry | None:
    """Returns the update whose digest and size a child told, or that it finished just before it was killed."""
    if told:
        return Entry(run, number, told[0], entry_path(folder, run, number, told[0]), told[1])
    sweep_drafts(folder)
    return next((entry for entry in entries(folder) if (entry.run, entry.round) == (run, number)), None)


def remove(entry: Entry) -> None:
    """Deletes a settled update."""
    entry.path.unlink(missing_ok=True)
