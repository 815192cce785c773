"""The magnitude at which the largest share of a tensor begins, ranked exactly now and then and reused in between.

k = ceil((1 - sparsity) * n), at least 1;   kept: |t| >= the k-th largest |t|, so ties may keep more than k
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Threshold", "kept_count", "threshold_of"]

_DIGITS = 6  # (1 - 0.95) * 400 is a little over 20 in floating point, and its ceiling must not be 21


def kept_count(sparsity: float, count: int) -> int:
    """Returns how many of `count` entries stay."""
    return max(1, math.ceil(round((1 - sparsity) * count, _DIGITS)))


def threshold_of(values: Tensor, k: int) -> float:
    """Returns the k-th largest magnitude."""
    return float(values.detach().abs().flatten().kthvalue(values.numel() - k + 1).values)


@dataclass(slots=True)
class Threshold:
    """Asked once a step; ranks on the first of every `period` calls. `age` counts the calls since."""

    sparsity: float
    period: int
    level: float = 0.0
    age: int = 0

    def next(self, values: Tensor) -> float:
        """Returns the threshold for these values.

        A level of 0 separates nothing and is never reused: a tensor that was mostly zeros would then be kept whole.
        """
        if self.age >= self.period or not self.level > 0:
            self.level = threshold_of(values, kept_count(self.sparsity, values.numel()))
            self.age = 0
        self.age += 1
        return self.level
