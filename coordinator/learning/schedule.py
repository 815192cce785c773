"""How many levels the uplink has, round by round, from the loss of the model that the devices received.

    ascending    s_k = ceil(s_0 * sqrt(F_0 / F_k))    Jhunjhunwala et al., AdaQuantFL, 2021
    rate aware   s_k = ceil(s_0 * (rate_k / rate_0) * sqrt(F_0 / F_k))
    descending   s_k = ceil(s_0 * sqrt(F_k / F_0))    the opposite trend: fine while updates are wide, coarse at the end
    fixed        s_k = as the stage says

F_k is the mean over the examples of the devices' own loss before they trained in round k, so it is known when round k
is over and sets the levels of round k+1. Rounds are counted that gave a model, not abandoned ones. Guard rails:
least <= s <= most; F is floored at a small number; a loss that is not finite, absurdly large or was not reported leaves
s as it was. s may fall again when the loss rises: there is no running maximum.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.recipes.rounding import rounded_up
from coordinator.recipes.sections import Schedule

__all__ = ["Course", "first_course", "mean_loss", "next_course", "scheduled"]

_LEAST_LOSS = 1e-12
_MOST_LOSS = 1e12  # what a device says beyond it is no loss, and sums of it would overflow


@dataclass(frozen=True, slots=True)
class Course:
    """Where a schedule stands: the levels of the next round, the first loss (0: unknown) and the first rate."""

    levels: int
    first_loss: float = 0.0
    first_rate: float = 0.0


def first_course(settings: Schedule, rate: float) -> Course:
    """Returns the course of the first round."""
    return Course(settings.start, 0.0, rate)


def next_course(course: Course, settings: Schedule, loss: float | None, steps: int, next_rate: float) -> Course:
    """Returns the course after the round that `steps` steps came before: its devices began with this loss, the next
    one trains at this rate.
    """
    if settings.rule == "fixed" or loss is None or not _plausible(loss):
        return course
    first = course.first_loss or max(loss, _LEAST_LOSS)
    if (steps + 1) % settings.update_every:
        return Course(course.levels, first, course.first_rate)
    fallen = first / max(loss, _LEAST_LOSS)
    rise = math.sqrt(fallen if settings.rule == "ascending" else 1.0 / fallen)
    if settings.rate_aware and course.first_rate:
        rise *= next_rate / course.first_rate
    levels = min(settings.most, max(settings.least, rounded_up(min(settings.start * rise, settings.most))))
    return Course(levels, first, course.first_rate)


def mean_loss(losses: Iterable[tuple[float, float]]) -> float | None:
    """Returns the mean of (loss, weight), or None if nobody reported one."""
    known = [(loss, weight) for loss, weight in losses if _plausible(loss)]
    total = math.fsum(weight for _, weight in known)
    return math.fsum(loss * weight for loss, weight in known) / total if total > 0 else None


def scheduled(stages: Iterable[Mapping[str, Any]], course: Course, settings: Schedule) -> tuple[Mapping[str, Any], ...]:
    """Returns the stages with the course's number of levels; a fixed schedule leaves them as they are."""
    if settings.rule == "fixed":
        return tuple(stages)
    return tuple({**stage, "levels": course.levels} if stage["stage"] == "levels" else stage for stage in stages)


def _plausible(loss: float) -> bool:
    return abs(loss) <= _MOST_LOSS  # false for what is not a number
