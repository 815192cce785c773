"""What a device keeps between rounds, as one file: named arrays, and what model of its own they hold, if they do.

The file is a frame of kind CHECKPOINT: its header lists name and shape of every array, its payload holds their float32
values in that order. A model of the device's own has its spec in the header, its tensors under PERSONAL and the values
that its quantised tensors may take under CENTRES.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from wire.errors import StateError, WireError
from wire.frame import Kind, decode_frame, encode_frame
from wire.params import Array, Params
from wire.spec import ModelSpec

__all__ = ["CENTRES", "PERSONAL", "Memory", "decode_memory", "encode_memory"]

PERSONAL = "personal/"
CENTRES = "centres/"


@dataclass(frozen=True, slots=True)
class Memory:
    """Arrays by name; `own` is the spec of the device's own model, where it has one."""

    arrays: Params = field(default_factory=dict)
    own: ModelSpec | None = None

    def below(self, prefix: str) -> Params:
        """Returns the arrays whose names begin with a prefix, by the rest of their names."""
        return {name.removeprefix(prefix): values for name, values in self.arrays.items() if name.startswith(prefix)}


def encode_memory(arrays: Mapping[str, Array], own: ModelSpec | None = None) -> bytes:
    """Returns the bytes of the file."""
    header = {"arrays": [[name, list(values.shape)] for name, values in arrays.items()]}
    payload = b"".join(np.ascontiguousarray(values, "<f4").tobytes() for values in arrays.values())
    return encode_frame(Kind.CHECKPOINT, header | ({"own": own.to_json()} if own else {}), payload)


def decode_memory(data: bytes) -> Memory:
    """Returns what the file holds; raises StateError if it is damaged."""
    try:
        frame = decode_frame(data, Kind.CHECKPOINT)
        arrays = _arrays(frame.header["arrays"], np.frombuffer(frame.payload, "<f4").astype(np.float32))
        own = frame.header.get("own")
        return Memory(arrays, None if own is None else ModelSpec.from_json(own))
    except (WireError, KeyError, TypeError, ValueError, AttributeError) as exc:
        raise StateError(f"it is no memory of a device: {exc}", code="E-MEMORY-FILE") from exc


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
