"""Joules of a stretch of work: power over time, a counter's difference, and None as soon as a reading fails."""

from __future__ import annotations

from itertools import chain, count, repeat
from time import sleep

import pytest

from edge_agent.meters.power import Metering, PowerMeter, counted, trapezoid

EVERY_S = 0.001


def metered(readings, between, clock, until):
    """Returns a stretch that ended once so many readings were taken."""
    given = iter(readings)
    with Metering(PowerMeter("fake", lambda: next(given), between), EVERY_S, clock) as metering:
        while metering.readings < until:
            sleep(EVERY_S)
    return metering


def seconds(step):
    ticks = count()
    return lambda: step * next(ticks)


def test_power_is_summed_over_time():
    metering = metered(((float(at), 1.0) for at in count()), trapezoid, seconds(0.5), 5)
    last = 0.5 * (metering.readings - 1)
    assert metering.joules == pytest.approx(last**2 + last)  # the integral of 2 t + 1


def test_a_counter_is_summed_over_every_start_anew():
    metering = metered(((float(3 * at % 10),) for at in count()), counted((10.0,)), seconds(1.0), 12)
    assert metering.joules == pytest.approx(3.0 * (metering.readings - 1))


@pytest.mark.parametrize("failing", [0, 2])
def test_one_reading_that_fails_leaves_no_sum(failing):
    readings = chain(repeat((1.0,), failing), [None], repeat((1.0,)))
    assert metered(readings, trapezoid, seconds(1.0), 6).joules is None


def test_two_readings_are_too_few():
    with Metering(PowerMeter("fake", lambda: (1.0,), trapezoid), 60.0) as metering:
        pass
    assert (metering.readings, metering.joules) == (2, None)


@pytest.mark.parametrize("fault", [OSError("gone"), MemoryError(), RuntimeError("no room")])
def test_a_reading_that_raises_leaves_no_sum_and_the_stretch_goes_on(fault):
    taken = count()

    def read():
        if next(taken) == 3:  # in the thread
            raise fault
        return (1.0,)

    with Metering(PowerMeter("fake", read, trapezoid), EVERY_S) as metering:
        while metering.readings < 6 and metering._thread.is_alive():
            sleep(EVERY_S)
    assert (metering.joules, metering.readings > 5) == (None, True)
