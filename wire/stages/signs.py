"""One bit a value: x -> scale * sign(x), scale = mean|x| (EF-SignSGD; Karimireddy, Rebjock, Stich, Jaggi, 2019).

sign(0) is +1. Of all arrays that are one number up to the sign, this is the nearest to x: what it leaves out, squared,
is ||x||^2 - n * scale^2, always less than x, so that feedback keeps it small. Symbols: 0 for +, 1 for -.
Side bytes: f32 scale.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from wire.bits import Bits
from wire.errors import WireError
from wire.stages.stage import Local, Shape, Vector

__all__ = ["Signs"]

_SIDE = struct.Struct("<f")


@dataclass(frozen=True, slots=True)
class Signs:
    """The signs and one scale; it has no settings."""

    def shape(self, taken: Shape) -> Shape:
        """See Stage."""
        return Shape(taken.size, 2)

    def encode(self, x: Vector, local: Local, bits: Bits) -> tuple[Vector, bytes]:
        """See Stage."""
        scale = float(np.abs(x).mean(dtype=np.float64)) if len(x) else 0.0
        if not math.isfinite(scale):
            raise WireError("the update holds values that are not finite", code="E-NONFINITE")
        return (x < 0).astype(np.uint8), _SIDE.pack(scale)

    def decode(self, y: Vector, side: memoryview, taken: Shape) -> Vector:
        """See Stage."""
        if len(side) != _SIDE.size:
            raise WireError(f"signs carry {len(side)} side bytes, expected {_SIDE.size}", code="E-SHAPE")
        (scale,) = _SIDE.unpack(side)
        if not (math.isfinite(scale) and scale >= 0):
            raise WireError(f"scale {scale} is not a finite number of at least 0", code="E-SCALE")
        return np.array([scale, -scale], np.float32)[y]
