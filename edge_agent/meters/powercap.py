"""The energy counters of an x86 processor (RAPL): its packages, without memory, disks and the supply.

Since Linux 5.10 only root may read them, unless somebody allows more.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_agent.kernel_files import number_in, text_in
from edge_agent.meters.power import PowerMeter, Reading, counted

__all__ = ["powercap"]


def powercap(root: Path) -> PowerMeter | None:
    """Returns the meter of all packages, if every one can be read."""
    zones = sorted(root.glob("sys/class/powercap/intel-rapl:[0-9]*"))
    packages = [zone for zone in zones if text_in(zone / "name").startswith("package-") and ":" not in zone.name[11:]]
    wraps = _all(packages, "max_energy_range_uj")
    if not wraps or 0.0 in wraps or _all(packages, "energy_uj") is None:
        return None
    names = "+".join(text_in(package / "name") for package in packages)
    return PowerMeter(f"rapl {names}", lambda: _all(packages, "energy_uj"), counted(wraps))


def _all(zones: Sequence[Path], name: str) -> Reading | None:
    """Returns one counter of each zone in joules; None if one cannot be read."""
    found = tuple(value / 1e6 for zone in zones if (value := number_in(zone / name)) is not None)
    return found if len(found) == len(zones) else None
