"""What a run's ledger says of its methods: accuracy at each bit-width, levels, privacy spent, personal accuracies.

A figure is there only if the run's method has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from coordinator.learning.epsilon import epsilon
from coordinator.recipes.sections import Privacy
from wire.errors import BitfleetError
from wire.settings import settings_from

__all__ = ["method_figures"]

Line = Mapping[str, Any]
_PERSONAL = ("accuracy_personal", "accuracy_local", "accuracy_global")


def method_figures(opened: Line, ledger: Sequence[Line]) -> dict[str, Any]:
    """Returns the figures of the run's methods from its ledger lines."""
    found: dict[str, Any] = {}
    by_bits = [line["accuracy_by_bits"] for line in ledger if "accuracy_by_bits" in line]
    levels = [line["levels"] for line in ledger if line["event"] == "phase" and "levels" in line]
    if by_bits:
        found["accuracy_by_bits"] = by_bits[-1]
    if levels:
        found["levels_by_round"] = levels
    if opened["recipe"].get("privacy", {}).get("clip"):
        found["privacy"] = _privacy(opened["recipe"], ledger)
    return found | _personal(ledger)


def _privacy(recipe: Mapping[str, Any], ledger: Sequence[Line]) -> dict[str, Any]:
    """Returns epsilon by the record of who took part, with what it rests on; None where it cannot be told."""
    privacy = settings_from(Privacy, recipe["privacy"], "privacy")
    steps = [line["updates"] for line in ledger if "updates" in line]
    joined: dict[str, set[int]] = {}
    for step, updates in enumerate(steps, start=1):
        for update in updates:
            joined.setdefault(update["device"], set()).add(step)
    try:
        spent = epsilon(privacy, len(steps), recipe["devices"]["goal"], list(joined.values()))
    except BitfleetError as exc:
        return {"epsilon": None, "delta": privacy.delta, "reason": str(exc)}
    known = spent.epsilon if math.isfinite(spent.epsilon) else None
    return {"epsilon": known, "delta": spent.delta, "assumptions": list(spent.assumptions), "warning": spent.warning}


def _personal(ledger: Sequence[Line]) -> dict[str, Any]:
    """Returns each device's newest accuracies on its own held-out examples, and their means over the devices."""
    newest: dict[str, dict[str, float]] = {}
    for line in ledger:
        if line["event"] == "accepted" and "accuracy_personal" in line.get("metrics", {}):
            metrics = line["metrics"]
            newest[line["device"]] = {name: metrics[name] for name in (*_PERSONAL, "personal_bytes") if name in metrics}
    if not newest:
        return {}
    means = {
        name: round(fmean(device[name] for device in newest.values()), 6)
        for name in _PERSONAL
        if all(_is_share(device.get(name)) for device in newest.values())
    }
    return {"personal": {"mean": means, "devices": dict(sorted(newest.items()))}}


def _is_share(value: object) -> bool:
    """Tells whether it can be an accuracy: a device may say anything, and a sum of large numbers overflows."""
    return isinstance(value, int | float) and 0 <= value <= 1
