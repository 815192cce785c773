"""Joules that a stretch of work took, by a meter of the board: power summed over time, or a counter's difference.

A meter is read every 0.1 s by a thread of its own. Unknown is not zero: one reading that fails, and the sum is None.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, Thread
from types import TracebackType

__all__ = ["Metering", "PowerMeter", "Reading", "counted", "trapezoid"]

Reading = tuple[float, ...]

_EVERY_S = 0.1
_FEWEST_READINGS = 3


@dataclass(frozen=True, slots=True)
class PowerMeter:
    """A meter that can be read. `between` gives the joules between two readings that lie so many seconds apart."""

    source: str
    read: Callable[[], Reading | None]
    between: Callable[[Reading, Reading, float], float]


class Metering:
    """The joules from its `with` to the end of it, of the whole board: what else runs there is in them."""

    def __init__(self, meter: PowerMeter, every_s: float = _EVERY_S, clock: Callable[[], float] = time.monotonic):
        self._meter, self._every_s, self._clock = meter, every_s, clock
        self._done, self._thread = Event(), Thread(target=self._watch, name="meter", daemon=True)
        self._last: tuple[float, Reading] | None = None
        self._sum_j, self._failed = 0.0, False
        self.readings = 0

    def __enter__(self) -> Metering:
        """Reads the meter for the first time."""
        self._take()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        """Reads it for the last time."""
        self._done.set()
        self._thread.join()
        self._take()

    @property
    def joules(self) -> float | None:
        """Returns the sum, once it is over; None if a reading failed or there were too few."""
        return None if self._failed or self.readings < _FEWEST_READINGS else self._sum_j

    def _watch(self) -> None:
        while not self._done.wait(self._every_s):
            self._take()

    def _read(self) -> Reading | None:
        try:
            return self._meter.read()
        except (OSError, RuntimeError, MemoryError):  # an error would end the thread, and leave a gap in the sum
            return None

    def _take(self) -> None:
        found, now_s = self._read(), self._clock()
        if found is None:
            self._failed = True
            return
        if self._last is not None:
            self._sum_j += self._meter.between(self._last[1], found, now_s - self._last[0])
        self._last = (now_s, found)
        self.readings += 1


def trapezoid(before: Reading, after: Reading, seconds: float) -> float:
    """Returns the joules between two readings in watts."""
    return seconds * (sum(before) + sum(after)) / 2


def counted(wraps_j: Reading) -> Callable[[Reading, Reading, float], float]:
    """Returns what takes the difference of counters in joules, each of which starts over at its own end."""

    def between(before: Reading, after: Reading, seconds: float) -> float:
        return sum((b - a) % wrap for a, b, wrap in zip(before, after, wraps_j, strict=True))

    return between
