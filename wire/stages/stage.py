"""What a stage is: a reversible step on one array, whose sizes are known before any byte is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt

from wire.bits import Bits
from wire.params import Array

__all__ = ["Local", "Shape", "Stage", "Vector"]

Vector = npt.NDArray[Any]


class Shape(NamedTuple):
    """How many elements there are, and of what: 0 symbols are float32 values, n symbols are integers 0 to n-1."""

    size: int
    symbols: int = 0


@dataclass(frozen=True, slots=True)
class Local:
    """What only the sender knows and a stage may look at: the weights after training, flat like the array."""

    weights: Array | None = None


class Stage(Protocol):
    """One step. `decode` gets the shape of what `encode` took, and raises WireError on anything not as planned."""

    def shape(self, taken: Shape) -> Shape:
        """Returns the shape of what comes out."""

    def encode(self, x: Vector, local: Local, bits: Bits) -> tuple[Vector, bytes]:
        """Returns what goes on, and what the reverse step needs beside it."""

    def decode(self, y: Vector, side: memoryview, taken: Shape) -> Vector:
        """Returns what `encode` stood for."""
