"""What the slots hold already of a manifest: a file that need not be fetched again, and the one that serves."""

from __future__ import annotations

from pathlib import Path

from edge_agent.serving.slots import file_digest, read_pointer, read_slot
from wire.pieces.assembly import link_whole

__all__ = ["lend", "serving_digest"]


def lend(folder: Path, manifest: str, target: Path, durable: bool = True) -> None:
    """Makes `target` the file that its name says, if a slot has that of this manifest, whole; what is there stays.

    Of another manifest none is lent: its bundle would not be here to build the next width on.
    """
    for slot in (read_slot(folder, name) for name in ("a", "b")):
        wanted = slot is not None and (slot.facts["manifest"], slot.facts["digest"]) == (manifest, target.name)
        if slot and wanted and not target.exists() and file_digest(slot.path) == target.name:
            link_whole(slot.path, target, durable)


def serving_digest(folder: Path, manifest: str) -> str:
    """Returns the digest of the file that serves, if it is of this manifest: the application has its memory already."""
    pointer = read_pointer(folder)
    slot = read_slot(folder, pointer.serving) if pointer else None
    return str(slot.facts["digest"]) if slot and slot.facts["manifest"] == manifest else ""
