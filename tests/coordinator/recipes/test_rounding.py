"""Rounding up, and the two numbers of devices that a recipe rounds up."""

from __future__ import annotations

import pytest

from coordinator.recipes.rounding import rounded_up
from coordinator.recipes.sections import Devices
from coordinator.rounds.selection import quorum_of


@pytest.mark.parametrize(
    ("value", "whole"), [(0.0, 0), (0.1, 1), (1.0, 1), (2.001, 3), (0.55 * 100, 55), (54.99999, 55)]
)
def test_the_next_whole_number_but_for_noise(value, whole):
    assert rounded_up(value) == whole


def test_a_share_of_the_goal_that_is_whole_is_that_many_devices():
    assert 0.55 * 100 > 55 and 1.1 * 100 > 110
    assert quorum_of(Devices(goal=100, quorum=0.55)) == 55
    assert quorum_of(Devices(goal=100, quorum=0.551)) == 56
    assert Devices(goal=100, over=1.1).invited == 110
    assert Devices(goal=100, over=1.101).invited == 111


@pytest.mark.parametrize("goal", [1, 3, 7, 100])
def test_no_device_less_than_the_share(goal):
    for percent in range(101):
        assert quorum_of(Devices(goal=goal, quorum=percent / 100)) == max(1, -(-percent * goal // 100))
