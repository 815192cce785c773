"""Stochastic uniform levels (QSGD type): x -> scale * q / levels with q a whole number in [-levels, levels].

    q = floor(levels * x / scale + u),  u uniform in [0, 1)      so E[scale * q / levels] = x
    scale = max|x|  (norm "max")  or  ||x||_2  (norm "l2", Jhunjhunwala et al., AdaQuantFL, 2021)

A zero vector has scale 1. Decoded: float32(q) * (float32(scale) / float32(levels)). Side bytes: u16 levels, f32 scale.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from wire.bits import Bits
from wire.errors import ConfigError, WireError
from wire.params import Array
from wire.stages.stage import Local, Shape, Vector

__all__ = ["MAX_LEVELS", "Levels"]

MAX_LEVELS = 65535
# Up to here a float32 sum of a level and a uniform keeps at least 13 of the uniform's bits.
_FLOAT32_LEVELS = 1023
_SIDE = struct.Struct("<Hf")


@dataclass(frozen=True, slots=True)
class Levels:
    """`levels` steps on each side of zero: 1 is ternary, 7 takes 4 bits, 127 takes 8."""

    levels: int
    norm: str = "max"

    def __post_init__(self) -> None:
        if type(self.levels) is not int or not 1 <= self.levels <= MAX_LEVELS:
            raise ConfigError(f"levels = {self.levels!r}", remedy=f"choose a whole number from 1 to {MAX_LEVELS}")
        if self.norm not in ("max", "l2"):
            raise ConfigError(f"norm = {self.norm!r}", remedy='choose "max" or "l2"')

    def shape(self, taken: Shape) -> Shape:
        """See Stage."""
        return Shape(taken.size, 2 * self.levels + 1)

    def encode(self, x: Vector, local: Local, bits: Bits) -> tuple[Vector, bytes]:
        """See Stage; the symbols are q + levels."""
        scale = _scale(x, self.norm)
        real = np.float32 if self.levels <= _FLOAT32_LEVELS else np.float64
        values = x.astype(real)
        values /= real(scale)
        values *= real(self.levels)
        values += bits.uniform(len(x))
        np.floor(values, out=values)
        values += real(self.levels)
        np.clip(values, 0, 2 * self.levels, out=values)
        return values.astype(_symbol_type(self.levels)), _SIDE.pack(self.levels, scale)

    def decode(self, y: Vector, side: memoryview, taken: Shape) -> Vector:
        """See Stage."""
        scale = self._checked_scale(side)
        step = np.float32(scale) / np.float32(self.levels)
        with np.errstate(over="ignore"):  # levels * step may round past the largest float32: the caller refuses that
            if self.levels <= MAX_LEVELS // 2:
                values: Array = (np.arange(2 * self.levels + 1, dtype=np.float32) - np.float32(self.levels)) * step
                return values[y]
            return np.asarray((y.astype(np.float32) - np.float32(self.levels)) * step, np.float32)

    def _checked_scale(self, side: memoryview) -> float:
        if len(side) != _SIDE.size:
            raise WireError(f"levels carry {len(side)} side bytes, expected {_SIDE.size}", code="E-SHAPE")
        levels, scale = _SIDE.unpack(side)
        if levels != self.levels:
            raise WireError(f"{levels} levels, the plan says {self.levels}", code="E-LEVELS")
        if not (math.isfinite(scale) and scale > 0):
            raise WireError(f"scale {scale} is not a positive finite number", code="E-SCALE")
        return float(scale)


def _scale(x: Array, norm: str) -> float:
    if not len(x):
        return 1.0
    if norm == "l2":
        size = float(np.sqrt(np.dot(x.astype(np.float64), x.astype(np.float64))))
    else:
        size = float(max(x.max(), -x.min()))
    if not math.isfinite(size) or size > float(np.finfo(np.float32).max):
        raise WireError("the update holds values that are not finite or too large", code="E-NONFINITE")
    # The scale travels as float32 and must not fall below any |x|: round it up.
    return _at_least(size) if size > 0 else 1.0


def _at_least(size: float) -> float:
    near = np.float32(size)
    # Of the largest float32 the next one up would be infinite, with a warning; but nothing is above it here.
    return float(near) if float(near) >= size else float(np.nextafter(near, np.float32(np.inf)))


def _symbol_type(levels: int) -> type[np.uint8] | type[np.uint32]:
    return np.uint8 if 2 * levels < 256 else np.uint32
