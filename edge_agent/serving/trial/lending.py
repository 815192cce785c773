"""Gives an installation the file that a slot holds already, so that it need not be fetched again."""

from __future__ import annotations

from pathlib import Path

from edge_agent.serving.slots import file_digest, read_slot
from wire.pieces.assembly import link_whole

__all__ = ["lend"]


def lend(folder: Path, manifest: str, target: Path, durable: bool = True) -> None:
    """Makes `target` the file that its name says, if a slot has that of this manifest, whole; what is there stays.

    Of another manifest none is lent: its bundle would not be here to build the next width on.
    """
    for slot in (read_slot(folder, name) for name in ("a", "b")):
        wanted = slot is not None and (slot.facts["manifest"], slot.facts["digest"]) == (manifest, target.name)
        if slot and wanted and not target.exists() and file_digest(slot.path) == target.name:
            link_whole(slot.path, target, durable)
