"""Where the time of a round goes, read from the ledger of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any

__all__ = ["link_figures", "round_parts"]

Line = Mapping[str, Any]
_MEDIANS = ("round_s", "train_s", "rest_s", "up_bytes", "down_bytes")


def round_parts(ledger: Sequence[Line]) -> list[dict[str, Any]]:
    """Returns the parts of each published round, in order; None where the ledger does not say.

    round_s: from the round's beginning until its updates are one model; measuring that model (evaluation_s) is the
    coordinator's own and is left out. train_s: the training of the device whose update came last, the one that was
    waited for. rest_s: the round without it: the links, and all that is neither. Bytes: the mean of the devices.
    """
    numbers = [line["round"] for line in ledger if line["event"] == "phase" and line["phase"] == "published"]
    return [_parts([line for line in ledger if line["round"] == number]) for number in numbers]


def link_figures(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the rounds and the medians over those after the first, in which nobody has a model to fetch."""
    found: dict[str, Any] = {"rounds": list(parts), "counted_rounds": len(parts[1:])}
    for name in _MEDIANS:
        values = [one[name] for one in parts[1:]]
        found[name] = round(median(values), 3) if values and None not in values else None
    return found


def _parts(lines: Sequence[Line]) -> dict[str, Any]:
    at_s = {line["phase"]: line["at"] for line in lines if line["event"] == "phase"}
    accepted = [line for line in lines if line["event"] == "accepted"]
    last = max(accepted, key=lambda line: line["at"])
    round_s, train_s = at_s["evaluation"] - at_s["selection"], last["metrics"].get("seconds")
    return {
        "round_s": round(round_s, 3),
        "train_s": train_s,
        "rest_s": None if train_s is None else round(round_s - train_s, 3),
        "evaluation_s": round(at_s["published"] - at_s["evaluation"], 3),
        "last_device": last["device"],
        "updates": len(accepted),
        "up_bytes": _bytes(lines, "up"),
        "down_bytes": _bytes(lines, "down"),
    }


def _bytes(lines: Sequence[Line], way: str) -> float | None:
    by_device = [count for line in lines if line["event"] == "traffic" for count in line[way].values()]
    return round(fmean(by_device), 1) if by_device else None
