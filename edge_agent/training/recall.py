"""A device's memory as arrays: read before a round, written after it.

The file is a frame of kind CHECKPOINT: its header lists name and shape of every array, its payload holds their float32
values in that order.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from pathlib import Path

import numpy as np

from edge_agent.kept.memory import memory_path, newest_memory, prune_memory
from wire.errors import StateError, WireError
from wire.frame import Kind, decode_frame, encode_frame
from wire.params import Array, Params
from wire.pieces.assembly import write_whole

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
        frame = decode_frame(kept.path.read_bytes(), Kind.CHECKPOINT)
        arrays = _arrays(frame.header["arrays"], np.frombuffer(frame.payload, "<f4").astype(np.float32))
        return arrays, "refused" if kept.round in given_up else kept.fate
    except (WireError, KeyError, TypeError, ValueError) as exc:
        kept.path.replace(kept.path.with_suffix(".damaged"))
        raise StateError(
            f"the memory {kept.path.name} cannot be read: {exc}",
            code="E-MEMORY-FILE",
            remedy="it was moved aside; the device goes on without",
        ) from exc


def remember(folder: Path, run: str, number: int, arrays: Mapping[str, Array], durable: bool = True) -> None:
    """Writes the memory after a round in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    header = {"arrays": [[name, list(values.shape)] for name, values in arrays.items()]}
    payload = b"".join(np.ascontiguousarray(values, "<f4").tobytes() for values in arrays.values())
    write_whole(memory_path(folder, run, number), encode_frame(Kind.CHECKPOINT, header, payload), durable)


def _arrays(names: list[tuple[str, list[int]]], values: Array) -> Params:
    arrays: Params = {}
    at = 0
    for name, shape in names:
        count = prod(shape)
        arrays[str(name)] = values[at : at + count].reshape(shape)
        at += count
    if at != len(values):
        raise ValueError(f"{len(values)} values, the header lists {at}")
    return arrays
