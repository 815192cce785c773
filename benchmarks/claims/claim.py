"""A claim: what a note says a method does, the trials that show it, and how the verdict follows from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

__all__ = ["LEAST_SEEDS", "Claim", "Limit", "Seed", "Verdict", "at_least", "at_most", "verdict"]

LEAST_SEEDS = 5

Seed = Mapping[str, Mapping[str, Any]]
"""The figures of one seed, by the name of the trial."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A bound on the mean over the seeds."""

    least: bool
    bound: float

    def __str__(self) -> str:
        return f"{'>=' if self.least else '<='} {self.bound:g}"

    def holds(self, value: float) -> bool:
        """Tells whether a value is within the bound."""
        return value >= self.bound if self.least else value <= self.bound

    def margin(self, value: float) -> float:
        """Returns how far a value is inside the bound; negative outside."""
        return value - self.bound if self.least else self.bound - value


def at_least(bound: float) -> Limit:
    """Returns the limit `value >= bound`."""
    return Limit(True, bound)


def at_most(bound: float) -> Limit:
    """Returns the limit `value <= bound`."""
    return Limit(False, bound)


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement. `source` names note and claim, `row` the row of the issue (0: none), `unit` that of the value.

    `value` gives one number for one seed, from trials of that very seed: differences are paired. It gives None where
    a run never came to what is asked, for example to a loss. `seeds` are asked for: one where it is the settings that
    are judged, by a seed of their own.
    """

    name: str
    source: str
    row: int
    text: str
    trials: tuple[str, ...]
    value: Callable[[Seed], float | None]
    limit: Limit
    unit: str = "points"
    seeds: int = LEAST_SEEDS


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the stored trials say of a claim. `mean` is None where nothing is stored, or where a seed has no value."""

    claim: Claim
    values: tuple[float | None, ...]

    @property
    def mean(self) -> float | None:
        """Returns the mean over the seeds."""
        known = [value for value in self.values if value is not None and math.isfinite(value)]
        return fmean(known) if known and len(known) == len(self.values) else None

    @property
    def spread(self) -> float | None:
        """Returns the standard deviation over the seeds (of a sample), None below two seeds."""
        known = [value for value in self.values if value is not None]
        return stdev(known) if self.mean is not None and len(known) > 1 else None

    @property
    def holds(self) -> bool:
        """Tells whether the claim holds on the seeds that there are, however few."""
        return self.mean is not None and self.claim.limit.holds(self.mean)

    @property
    def ok(self) -> bool:
        """Tells whether the claim holds on as many seeds as it asks for."""
        return self.holds and len(self.values) >= self.claim.seeds

    @property
    def state(self) -> str:
        """Returns PASS, FALLS SHORT or NOT MEASURED, with the number of seeds where they are too few."""
        if not self.values:
            return "NOT MEASURED"
        said = "PASS" if self.holds else "FALLS SHORT"
        count = len(self.values)
        return said if count >= self.claim.seeds else f"{said} ({count} seed{'s' if count > 1 else ''})"

    @property
    def measured(self) -> str:
        """Returns the value in words: mean, standard deviation, seeds."""
        if not self.values:
            return "-"
        count, missing = len(self.values), sum(value is None for value in self.values)
        if self.mean is None:
            return f"not reached with {missing} of {count} seeds" if missing else "not finite"
        spread = "" if self.spread is None else f" ± {_figure(self.spread)}"
        return f"{_figure(self.mean)}{spread} {self.claim.unit}, {count} seed{'s' if count > 1 else ''}"

    @property
    def margin(self) -> str:
        """Returns how far the mean is inside the limit, and in standard errors where that is known."""
        if self.mean is None:
            return "-"
        gap = self.claim.limit.margin(self.mean)
        error = (self.spread or 0.0) / math.sqrt(len(self.values))
        return f"{_signed(gap)} ({gap / error:+.1f} s.e.)" if error else _signed(gap)


def verdict(claim: Claim, seeds: Sequence[Seed]) -> Verdict:
    """Returns the verdict on a claim from the seeds that have all of its trials."""
    whole = [figures for figures in seeds if all(name in figures for name in claim.trials)]
    return Verdict(claim, tuple(claim.value(figures) for figures in whole))


def _figure(value: float) -> str:
    return f"{value:.2f}" if 0.1 <= abs(value) < 100 or value == 0 else f"{value:.3g}"


def _signed(value: float) -> str:
    return f"+{_figure(value)}" if value >= 0 else _figure(value)
