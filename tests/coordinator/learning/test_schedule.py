"""Levels from the loss: the formula, its guard rails, and what is not known leaves them as they were."""

from __future__ import annotations

import math

import pytest

from coordinator.learning.schedule import Course, first_course, mean_loss, next_course, scheduled
from coordinator.recipes.sections import Schedule
from wire.errors import ConfigError

UP = Schedule("ascending", start=2)


def levels(losses, settings=UP, rates=None):
    """Returns the levels of each round, whose devices began with these losses."""
    rates = rates or [0.1] * (len(losses) + 1)
    course = first_course(settings, rates[0])
    found = [course.levels]
    for number, loss in enumerate(losses):
        course = next_course(course, settings, loss, number, rates[number + 1])
        found.append(course.levels)
    return found


def test_the_first_round_has_the_first_levels_and_its_loss_is_the_measure():
    assert levels([2.3]) == [2, 2]
    assert levels([2.3, 2.3]) == [2, 2, 2]


@pytest.mark.parametrize("start", [1, 2, 3, 16, 100])
def test_a_quarter_of_the_loss_is_twice_the_levels(start):
    settings = Schedule("ascending", start=start)
    assert levels([2.0, 0.5, 0.125, 2.0 / 300], settings)[2:] == [
        2 * start, 4 * start, math.ceil(start * math.sqrt(300))
    ]  # fmt: skip


def test_levels_are_rounded_up():
    assert levels([1.0, 1 / 1.01])[-1] == 3
    assert levels([1.0, 1 / 2.25])[-1] == 3
    assert levels([1.0, 1 / 2.26])[-1] == 4
    for n in range(1, 400):  # a whole number is not pushed up by the noise of its own root
        assert levels([1.0, 1.0 / n**2], Schedule("ascending", start=1))[-1] == n


def test_a_loss_that_rises_lowers_them():
    assert levels([1.0, 0.01, 0.25, 1.0, 4.0]) == [2, 2, 20, 4, 2, 1]


def test_the_guard_rails():
    settings = Schedule("ascending", start=4, least=3, most=9)
    assert levels([1.0, 1e-6, 100.0], settings) == [4, 4, 9, 3]
    assert levels([1.0, 0.0])[-1] == 65535
    assert levels([0.0, 0.0, 1.0]) == [2, 2, 2, 1]
    assert levels([1.0, -5.0])[-1] == 65535  # no loss is below the floor
    assert levels([1e12, 1e-300])[-1] == 65535
    assert levels([1e-300, 1e12])[-1] == 1
    assert levels([1.0, 1e-300], Schedule("ascending", start=2, rate_aware=True), [1e-300, 1e6, 1e6])[-1] == 65535


@pytest.mark.parametrize("unknown", [None, math.nan, math.inf, -math.inf, 1e300, -1e13])
def test_a_loss_that_is_not_known_leaves_them_as_they_were(unknown):
    assert levels([1.0, 0.25, unknown, unknown, 0.0625]) == [2, 2, 4, 4, 4, 8]
    assert levels([unknown, 1.0, 0.25]) == [2, 2, 2, 4]


def test_a_late_first_loss_is_still_the_measure():
    assert levels([None, None, 4.0, 1.0])[-1] == 4


def test_every_so_many_rounds():
    settings = Schedule("ascending", start=2, update_every=3)
    losses = [1.0, 1 / 4, 1 / 9, 1 / 16, 1 / 25, 1 / 36, 1 / 49]
    assert levels(losses, settings) == [2, 2, 2, 6, 6, 6, 12, 12]


def test_half_the_rate_is_half_the_levels_where_they_follow_it():
    losses, rates = [1.0, 1 / 16, 1 / 16], [0.4, 0.4, 0.2, 0.1]
    assert levels(losses, Schedule("ascending", start=8, rate_aware=True), rates) == [8, 8, 16, 8]
    assert levels(losses, Schedule("ascending", start=8), rates) == [8, 8, 32, 32]


def test_without_a_first_rate_there_is_nothing_to_compare():
    assert levels([1.0, 0.25], Schedule("ascending", start=2, rate_aware=True), [0.0, 0.1, 0.1]) == [2, 2, 4]


def test_descending_is_the_opposite():
    settings = Schedule("descending", start=16)
    assert levels([1.0, 0.25, 1 / 16, 4.0], settings) == [16, 16, 8, 4, 32]
    assert levels([1.0, 1e-12], settings)[-1] == 1


def test_fixed_is_as_the_stages_say():
    settings, stages = Schedule(), ({"stage": "topk", "share": 0.1}, {"stage": "levels", "levels": 5})
    course = first_course(settings, 0.1)
    assert next_course(course, settings, 0.001, 0, 0.1) == course
    assert scheduled(stages, course, settings) == stages


def test_only_the_levels_of_the_stages_change():
    stages = ({"stage": "topk", "share": 0.1}, {"stage": "levels", "levels": 5, "norm": "l2"})
    found = scheduled(stages, Course(9), UP)
    assert found == ({"stage": "topk", "share": 0.1}, {"stage": "levels", "levels": 9, "norm": "l2"})
    assert stages[1]["levels"] == 5


def test_the_mean_loss_weighs_by_examples():
    assert mean_loss([(1.0, 1.0), (2.0, 3.0)]) == 1.75
    assert mean_loss([(1.0, 1.0), (math.nan, 5.0), (math.inf, 5.0)]) == 1.0
    assert mean_loss([]) is None
    assert mean_loss([(math.nan, 1.0)]) is None
    assert mean_loss([(1.0, 0.0)]) is None


@pytest.mark.parametrize(
    "losses",
    [[1e308] * 2, [1.7e308, -1.7e308], [1e308, 1.0], [-1e308, -1e308, 1e308], [1.7e308] * 50],
)
@pytest.mark.parametrize("weight", [1.0, 1e7])
def test_hostile_losses_do_not_stop_the_coordinator(losses, weight):
    found = mean_loss([(loss, weight) for loss in losses])
    assert found is None or math.isfinite(found)
    course = next_course(Course(2, 1.0, 0.1), UP, found, 1, 0.1)
    assert 1 <= course.levels <= 65535


@pytest.mark.parametrize(
    "wrong",
    [
        {"rule": "rising"},
        {"start": 0},
        {"least": 0},
        {"most": 65536},
        {"least": 5, "most": 4},
        {"start": 2, "least": 3},
        {"start": 9, "most": 8},
        {"update_every": 0},
    ],
    ids=str,
)
def test_what_means_nothing_is_refused(wrong):
    with pytest.raises(ConfigError, match="schedule"):
        Schedule(**{"rule": "ascending", "start": 5, **wrong})
