"""Rounding up what should have been whole."""

from __future__ import annotations

import math

__all__ = ["rounded_up"]


def rounded_up(value: float) -> int:
    """Returns the next whole number, but for the noise of a product: 2 * sqrt(4) is 4, and 0.55 * 100 is 55."""
    near = round(value)
    return near if math.isclose(value, near, rel_tol=1e-9) else math.ceil(value)
