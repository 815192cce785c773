"""Keeps the share of the entries that are largest in magnitude, and where they stand.

k = ceil(share * n), at least 1. Ties go to the lower position. Ranked by the array itself (`by = "values"`) or by the
sender's weights (`by = "weights"`; Qiu et al., ZeroFL, 2022). Side bytes: the positions, see `positions`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from wire.bits import Bits
from wire.errors import ConfigError, WireError
from wire.params import Array
from wire.stages.positions import Positions, decode_positions, encode_positions
from wire.stages.stage import Local, Shape, Vector

__all__ = ["TopK", "largest"]


def largest(magnitudes: Array, k: int) -> Positions:
    """Returns the sorted positions of the k largest; ties go to the lower position."""
    n = len(magnitudes)
    if k >= n:
        return np.arange(n)
    bar = np.partition(magnitudes, n - k)[n - k]
    above = np.flatnonzero(magnitudes > bar)
    level = np.flatnonzero(magnitudes == bar)[: k - len(above)]
    return np.sort(np.concatenate([above, level]))


@dataclass(frozen=True, slots=True)
class TopK:
    """`share` of the entries, 0 < share <= 1."""

    share: float
    by: str = "values"

    def __post_init__(self) -> None:
        if type(self.share) not in (int, float) or not 0 < self.share <= 1:
            raise ConfigError(f"share = {self.share!r}", remedy="choose more than 0 and at most 1")
        if self.by not in ("values", "weights"):
            raise ConfigError(f"by = {self.by!r}", remedy='choose "values" or "weights"')

    def shape(self, taken: Shape) -> Shape:
        """See Stage."""
        return Shape(max(1, math.ceil(self.share * taken.size)) if taken.size else 0, taken.symbols)

    def encode(self, x: Vector, local: Local, bits: Bits) -> tuple[Vector, bytes]:
        """See Stage."""
        ranked = x if self.by == "values" else local.weights
        if ranked is None:
            raise ConfigError('top-k by "weights" without weights', remedy="use it for updates, not for blobs")
        if len(ranked) != len(x):
            raise ConfigError('top-k by "weights" after another top-k', remedy="put it first")
        k = self.shape(Shape(len(x))).size
        positions = largest(np.abs(ranked), k)
        if len(positions) != k:
            raise WireError("the weights hold values that are not numbers", code="E-NONFINITE")
        return x[positions], encode_positions(positions, len(x))

    def decode(self, y: Vector, side: memoryview, taken: Shape) -> Vector:
        """See Stage."""
        values = np.zeros(taken.size, y.dtype)
        values[decode_positions(side, len(y), taken.size)] = y
        return values
