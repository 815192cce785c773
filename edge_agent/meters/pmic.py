"""The power chip of a Raspberry Pi 5, which has volts and amperes of twelve rails: what the firmware's tool says.

The 5 V rail is not among them (USB, HATs, disks), nor what the chip itself loses: the sum is of the rails, not of the
plug. Older boards have no such chip.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Sequence

from edge_agent.meters.power import PowerMeter, Reading, trapezoid

__all__ = ["Run", "pmic", "ran"]

Run = Callable[[Sequence[str]], str]

_ASKS = ("vcgencmd", "pmic_read_adc")
_LINE = re.compile(r"^\s*(\w+)_([AV])(?:\s+(?:current|volt)\(\d+\))?=(.*)[AV]\s*$", re.MULTILINE)
_LIMIT_S = 2.0
_MOST_W = 40.0  # of one rail: more is a reading gone wrong, the whole board is fed with 25


def pmic(run: Run) -> PowerMeter | None:
    """Returns the meter of the rails, if the tool is there and may be asked."""

    def read() -> Reading | None:
        return _watts(run(_ASKS))

    return PowerMeter("pmic rails", read, trapezoid) if read() else None


def ran(words: Sequence[str]) -> str:
    """Returns what a tool prints; nothing where it is not there, fails or hangs."""
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("ascii", "replace")


def _watts(text: str) -> Reading | None:
    """Returns the watts of each rail with a current; None if there is none, one has no volts or cannot be true."""
    try:
        found = {(name, unit): float(value) for name, unit, value in _LINE.findall(text)}
    except ValueError:
        return None
    rails = sorted(name for name, unit in found if unit == "A")
    if not rails or any((name, "V") not in found for name in rails):
        return None
    watts = tuple(found[name, "A"] * found[name, "V"] for name in rails)
    return watts if all(0 <= value <= _MOST_W for value in watts) else None
