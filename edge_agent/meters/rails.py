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
    """Returns the meter of a Jetson's power monitors, if it can be read: of its input, else of all rails that can."""
    rails = _rails(root)
    whole = next((name for name in _INPUTS if name in rails), None)
    kept = {whole: rails[whole]} if whole else {name: watts for name, watts in rails.items() if watts() is not None}
    meter = PowerMeter(f"ina3221 {'+'.join(sorted(kept))}", _sum(kept.values()), trapezoid)
    return meter if meter.read() else None


def wired(root: Path) -> PowerMeter | None:
    """Returns the meter of an INA219 or the like; of several nothing says what each watches: None."""
    found = [chip for chip in sorted(root.glob("sys/class/hwmon/hwmon*")) if text_in(chip / "name") in _WIRED]
    if len(found) != 1 or number_in(found[0] / "power1_input") is None:
        return None
    return PowerMeter(text_in(found[0] / "name"), _sum([_scaled(found[0] / "power1_input", 1e-6)]), trapezoid)


def _rails(root: Path) -> Mapping[str, Watts]:
    """Returns rails by name.

    JetPack 5 and later (hwmon) say millivolts and milliamperes of each, and in in7 the sum of the shunts, no rail;
    JetPack 4 (iio) says milliwatts.
    """
    newer = [chip for chip in root.glob("sys/class/hwmon/hwmon*") if text_in(chip / "name") == "ina3221"]
    older = root.glob("sys/bus/i2c/drivers/ina3221x/*/iio:device*")
    found = [
        *((chip / f"in{at}_label", _product(chip / f"in{at}_input", chip / f"curr{at}_input"))
          for chip in sorted(newer) for at in "123"),
        *((chip / f"rail_name_{at}", _scaled(chip / f"in_power{at}_input", 1e-3))
          for chip in sorted(older) for at in "012"),
    ]  # fmt: skip
    named = ((text_in(label), watts) for label, watts in found)
    return {name: watts for name, watts in named if name not in ("", "NC")}


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
