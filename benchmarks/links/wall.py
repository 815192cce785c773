"""Wall time to an accuracy: the rounds that a simulated trial needed, by the measured time of a round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.claims.readings import plateau, ratio

__all__ = ["MEASURED", "SIMULATED", "rounds_to_accuracy", "wall_ratio", "wall_times"]

SIMULATED = {"fedavg": "tg-leaf-fedavg", "combined": "tg-leaf-combined"}
MEASURED = {"fedavg": "tg-links-fedavg", "combined": "tg-links-combined"}
_POINTS_BELOW = 2.0

Figures = Mapping[str, Any]


def rounds_to_accuracy(figures: Figures, percent: float) -> int | None:
    """Returns after how many rounds the accuracy was first measured to be that high; None if it never was."""
    reached = [one["rounds"] for one in figures["evaluated"] if 100.0 * one["accuracy"] >= percent]
    return int(reached[0]) if reached else None


def wall_times(seed: Mapping[str, Figures]) -> dict[str, float | None]:
    """Returns rounds and wall time of both recipes up to FedAvg's plateau less 2 points, and FedAvg's over the other's.

    `seed` holds the figures of one seed by trial. None: never reached, or a trial that is not stored.
    """
    plain = seed.get(SIMULATED["fedavg"])
    goal = plateau(plain) - _POINTS_BELOW if plain else None
    found: dict[str, float | None] = {"goal_percent": goal}
    for name, trial in SIMULATED.items():
        found |= _side(name, seed.get(trial), seed.get(MEASURED[name]), goal)
    found["ratio"] = ratio(found["fedavg_wall_s"], found["combined_wall_s"])
    found["ratio_without_training"] = ratio(found["fedavg_wall_rest_s"], found["combined_wall_rest_s"])
    return found


def wall_ratio(seed: Mapping[str, Figures]) -> float | None:
    """Returns FedAvg's wall time over that of the combined recipe."""
    return wall_times(seed)["ratio"]


def _side(name: str, trial: Figures | None, links: Figures | None, goal: float | None) -> dict[str, float | None]:
    rounds = rounds_to_accuracy(trial, goal) if trial and goal is not None else None
    round_s, rest_s = (links["round_s"], links["rest_s"]) if links else (None, None)
    return {
        f"{name}_rounds": rounds,
        f"{name}_wall_s": _times(rounds, round_s),
        f"{name}_wall_rest_s": _times(rounds, rest_s),
    }


def _times(rounds: int | None, seconds: float | None) -> float | None:
    return None if rounds is None or seconds is None else rounds * seconds
