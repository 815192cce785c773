"""Golden inputs, and what each variant of a model must answer to them: one blob, float32, no pickle.

A frame of kind GOLDEN. Its header has the shapes, its payload is the inputs and then each variant's outputs, in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from wire.errors import WireError
from wire.frame import Kind, decode_frame, encode_frame
from wire.messages.fields import id_field, int_field
from wire.messages.manifest import MOST_VARIANTS
from wire.params import Array

__all__ = ["decode_golden", "encode_golden"]

_MOST_EXAMPLES = 1024
_MOST_SIDES = 8


def encode_golden(inputs: Array, outputs: Mapping[str, Array]) -> bytes:
    """Returns the blob. All outputs have one row for each input."""
    first = next(iter(outputs.values()), None)
    if first is None or any(part.shape != (len(inputs), first.shape[-1]) for part in outputs.values()):
        raise WireError(f"answers of {len(outputs)} variants are not one row for each of {len(inputs)} inputs")
    header = {
        "examples": len(inputs),
        "input": list(inputs.shape[1:]),
        "outputs": first.shape[1],
        "variants": list(outputs),
    }
    parts = [inputs, *outputs.values()]
    return encode_frame(Kind.GOLDEN, header, b"".join(part.astype("<f4").tobytes() for part in parts))


def decode_golden(data: bytes) -> tuple[Array, dict[str, Array]]:
    """Returns the inputs, and the outputs by variant; every length is checked before anything is read."""
    frame = decode_frame(data, Kind.GOLDEN)
    header, names, sides = frame.header, frame.header.get("variants"), frame.header.get("input")
    if not isinstance(names, list) or not 1 <= len(names) <= MOST_VARIANTS:
        raise WireError(f"field 'variants' is not a list of 1 to {MOST_VARIANTS} names")
    if not isinstance(sides, list) or not 1 <= len(sides) <= _MOST_SIDES:
        raise WireError(f"field 'input' is not a list of 1 to {_MOST_SIDES} sizes")
    variants = [id_field({"variants": name}, "variants") for name in names]
    if len(set(variants)) < len(variants):
        raise WireError("two variants of a golden blob have the same name")
    count, outputs = int_field(header, "examples", 1, _MOST_EXAMPLES), int_field(header, "outputs", 1, 1 << 24)
    shape = (count, *(int_field({"input": side}, "input", 1, 1 << 24) for side in sides))
    width = prod(shape)
    if len(frame.payload) != 4 * (width + len(variants) * count * outputs):
        raise WireError(f"a golden blob of {len(frame.payload)} bytes does not hold what its header says")
    values = np.frombuffer(frame.payload, "<f4").astype(np.float32)
    if not np.isfinite(values).all():
        raise WireError("a golden blob holds values that are not finite", code="E-NONFINITE")
    rows = values[width:].reshape(len(variants), count, outputs)
    return values[:width].reshape(shape), dict(zip(variants, rows, strict=True))
