"""Which meter a board has: of several, the one that sees most of it."""

from __future__ import annotations

from pathlib import Path

from edge_agent.meters.pmic import Run, pmic, ran
from edge_agent.meters.power import PowerMeter
from edge_agent.meters.powercap import powercap
from edge_agent.meters.rails import jetson, wired

__all__ = ["find_meter"]


def find_meter(root: Path = Path("/"), run: Run = ran) -> PowerMeter | None:
    """Returns the board's meter, or None. Estimates are none: a board without a meter has no joules."""
    return wired(root) or jetson(root) or pmic(run) or powercap(root)
