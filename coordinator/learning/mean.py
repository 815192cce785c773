"""The streaming mean: one update at a time in canonical order, so memory does not grow with the number of devices.

mean = sum_k w_k x_k / sum_k w_k,   summed in float64 in the order of (device, round), rounded once to float32
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wire.errors import StateError
from wire.params import Array, Params

__all__ = ["Mean"]


@dataclass(slots=True)
class Mean:
    """A running weighted sum."""

    sums: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    weight: float = 0.0

    def fold(self, tensors: Mapping[str, Array], weight: float) -> None:
        """Adds one update."""
        for name, values in tensors.items():
            if name not in self.sums:
                self.sums[name] = np.zeros(values.shape, np.float64)
            self.sums[name] += np.multiply(values, weight, dtype=np.float64)  # NumPy 1 would multiply in float32
        self.weight += weight

    def result(self) -> Params:
        """Returns the mean."""
        if not self.weight > 0:
            raise StateError("the mean of no updates")
        return {name: (total / self.weight).astype(np.float32) for name, total in self.sums.items()}
