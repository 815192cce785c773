"""Supply rails by the current monitors on a board: INA3221 on a Jetson, INA219 and its kin where somebody wired one.

A Jetson's input rail is the whole: the other rails are parts of it and are not added. Where no chip watches the input,
the rails are summed. Numbers of hwmon change from boot to boot, so rails go by their labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from edge_agent.kernel_files import number_in, text_in
from edge_agent.meters.power import PowerMeter, Reading, trapezoid

__all__ = ["jetson", "wired"]

_INPUTS = ("VDD_IN", "POM_5V_IN")
_WIRED = ("ina219", "ina220", "ina226", "ina230", "ina231", "ina238", "ina260")

Watts = Callable[[], float | None]


def jetson(root: Path) -> PowerMeter | None:
    """Returns the meter of a Jetson's power monitors: JetPack 5 and later (hwmon), JetPack 4 (iio)."""
    rails = {**_of_hwmon(root), **_of_iio(root)}
    whole = next((name for name in _INPUTS if name in rails), None)
    if whole:
        return PowerMeter(f"ina3221 {whole}", _sum([rails[whole]]), trapezoid)
    return PowerMeter(f"ina3221 {'+'.join(sorted(rails))}", _sum(rails.values()), trapezoid) if rails else None


def wired(root: Path) -> PowerMeter | None:
    """Returns the meter of an INA219 or the like; of several nothing says what each watches: None."""
    found = [chip for chip in sorted(root.glob("sys/class/hwmon/hwmon*")) if text_in(chip / "name") in _WIRED]
    if len(found) != 1 or number_in(found[0] / "power1_input") is None:
        return None
    return PowerMeter(text_in(found[0] / "name"), _sum([_scaled(found[0] / "power1_input", 1e-6)]), trapezoid)


def _of_hwmon(root: Path) -> Mapping[str, Watts]:
    """Returns rails by name; such a chip says millivolts and milliamperes of each, and the sum of its shunts in in7."""
    rails = {}
    for chip in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if text_in(chip / "name") != "ina3221":
            continue
        for at in "123":
            label = text_in(chip / f"in{at}_label")
            if label and label != "NC":
                rails[label] = _product(chip / f"in{at}_input", chip / f"curr{at}_input")
    return rails


def _of_iio(root: Path) -> Mapping[str, Watts]:
    """Returns rails by name; the older driver says milliwatts."""
    rails = {}
    for chip in sorted(root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*")):
        for at in "012":
            label = text_in(chip / f"rail_name_{at}")
            if label and label != "NC":
                rails[label] = _scaled(chip / f"in_power{at}_input", 1e-3)
    return rails


def _sum(rails: Iterable[Watts]) -> Callable[[], Reading | None]:
    kept = tuple(rails)

    def read() -> Reading | None:
        found = tuple(watts for one in kept if (watts := one()) is not None)
        return found if len(found) == len(kept) and sum(found) >= 0 else None

    return read


def _product(millivolts: Path, milliamperes: Path) -> Watts:
    def watts() -> float | None:
        volts, current = number_in(millivolts), number_in(milliamperes)
        return None if volts is None or current is None else volts * current / 1e6

    return watts


def _scaled(path: Path, unit: float) -> Watts:
    def watts() -> float | None:
        found = number_in(path)
        return None if found is None else found * unit

    return watts
