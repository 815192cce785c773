"""How long two models take, measured in turns so that a busy moment hits both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

__all__ = ["Race", "race"]


@dataclass(frozen=True, slots=True)
class Race:
    """Medians over the rounds: of how long the first takes, in milliseconds, and of each round's own ratio."""

    first_ms: float
    ratio: float


def race(first: Callable[[], object], second: Callable[[], object], rounds: int, calls: int = 1) -> Race:
    """Returns how long `first` takes over `second`, each called `calls` times a round, one after the other."""
    firsts, seconds = [], []
    for _ in range(max(1, rounds)):
        firsts.append(_each_ms(first, calls))
        seconds.append(_each_ms(second, calls))
    return Race(median(firsts), median(a / b for a, b in zip(firsts, seconds, strict=True)))


def _each_ms(call: Callable[[], object], calls: int) -> float:
    start = perf_counter()
    for _ in range(calls):
        call()
    return (perf_counter() - start) * 1e3 / calls
