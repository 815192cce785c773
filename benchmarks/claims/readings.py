"""What claims read off a trial's figures: accuracies in percent, bytes up to a goal, losses."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from statistics import fmean
from typing import Any

__all__ = [
    "accuracy",
    "bytes_to_accuracy",
    "bytes_to_loss",
    "final_loss",
    "personal",
    "plateau",
    "ratio",
    "spent",
]

Figures = Mapping[str, Any]
_READINGS = 3
_WAYS = {"up": ("up_by_round",), "down": ("down_by_round",), "both": ("up_by_round", "down_by_round")}


def accuracy(figures: Figures, name: str = "accuracy") -> float:
    """Returns the last measured accuracy, or another measured figure, in percent."""
    return 100.0 * float(figures["evaluated"][-1][name])


def plateau(figures: Figures, bits: int = 0, readings: int = _READINGS) -> float:
    """Returns the mean of the last readings in percent, at a bit-width if given: a single one moves by points."""
    last = figures["evaluated"][-readings:]
    return 100.0 * fmean(one["accuracy_by_bits"][str(bits)] if bits else one["accuracy"] for one in last)


def spent(figures: Figures, way: str = "up") -> list[int]:
    """Returns the bytes that had travelled after each round."""
    return list(accumulate(map(sum, zip(*(figures[name] for name in _WAYS[way]), strict=True))))


def bytes_to_accuracy(figures: Figures, percent: float, way: str = "up") -> float | None:
    """Returns the bytes spent when the accuracy was first measured to be that high; None if it never was."""
    totals = spent(figures, way)
    reached = [one["rounds"] for one in figures["evaluated"] if 100.0 * one["accuracy"] >= percent]
    return float(totals[reached[0] - 1]) if reached else None


def bytes_to_loss(figures: Figures, goal: float) -> float | None:
    """Returns the uplink bytes that led to the first model with a training loss this low; None if there is none.

    The loss is what devices find before they train in a round, so the bytes are those of the rounds before it.
    """
    totals = [0, *spent(figures)]
    reached = [at for at, loss in enumerate(figures["loss_by_round"]) if loss is not None and loss <= goal]
    return float(totals[reached[0]]) if reached else None


def final_loss(figures: Figures) -> float:
    """Returns the training loss that the last round began with."""
    return float(figures["loss_by_round"][-1])


def personal(figures: Figures, name: str = "personal") -> float:
    """Returns the mean over the devices of their last own accuracy, in percent: personal, local or global."""
    return 100.0 * float(figures["personal"]["mean"][f"accuracy_{name}"])


def ratio(part: float | None, whole: float | None) -> float | None:
    """Returns part over whole; None where one of them is unknown or nothing was spent."""
    return None if part is None or not whole else part / whole
