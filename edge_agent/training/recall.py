"""A device's memory: read before a round, written after it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from edge_agent.kept.aside import set_aside
from edge_agent.kept.memory import mark_newest, memory_path, newest_memory, prune_memory
from models.personal.memory import decode_memory, encode_memory
from wire.errors import StateError
from wire.params import Array, Params
from wire.pieces.assembly import write_whole
from wire.spec import ModelSpec

__all__ = ["Recalled", "recall", "remember"]

Recalled = tuple[Params, str]


def recall(folder: Path, run: str, number: int, given_up: Collection[int] = ()) -> Recalled:
    """Returns what round `number` of a run starts from, and what became of the update before it ("" at the start).

    An update that was accepted in a round that was then given up counts nowhere: it is as good as refused.
    """
    prune_memory(folder, run, number)
    kept = newest_memory(folder, run, number)
    if kept is None:
        return {}, ""
    try:
        return decode_memory(kept.path.read_bytes()).arrays, "refused" if kept.round in given_up else kept.fate
    except StateError as exc:
        set_aside(kept.path)
        raise StateError(
            f"the memory {kept.path.name} cannot be read: {exc.message}",
            code=exc.code,
            remedy="it was moved aside; the device goes on without",
        ) from exc


def remember(  # noqa: PLR0917 - run and round name the file, the others are what is in it
    folder: Path, run: str, number: int, arrays: Mapping[str, Array], own: ModelSpec | None = None, durable: bool = True
) -> None:
    """Writes the memory after a round in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    path = memory_path(folder, run, number)
    write_whole(path, encode_memory(arrays, own), durable)
    mark_newest(path)
