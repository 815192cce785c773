"""The figures of one run for the store, round by round, from its ledger and its final model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from coordinator.front.report import figures_of
from coordinator.learning.schedule import mean_loss

__all__ = ["model_figures", "run_figures"]

Line = Mapping[str, Any]
_MEASURED = ("accuracy", "loss", "accuracy_unmasked", "accuracy_by_bits")
_PERSONAL = ("accuracy_personal", "accuracy_local", "accuracy_global", "distance")


def run_figures(ledger: Sequence[Line]) -> dict[str, Any]:
    """Returns what the ledger says of a run; lists have one entry for each published round, None where unknown."""
    numbers = [line["round"] for line in ledger if line["event"] == "phase" and line["phase"] == "published"]
    whole = figures_of(ledger)
    found = {
        "status": whole["status"],
        "accuracy": whole["accuracy"],
        "evaluated": [_measured(line, numbers) for line in ledger if line["event"] == "evaluated" and "loss" in line],
        "loss_by_round": _each(_accepted(ledger, numbers), _loss),
        "up_by_round": _bytes(ledger, numbers, "up"),
        "down_by_round": _bytes(ledger, numbers, "down"),
        "update_bytes_by_round": _each(_accepted(ledger, numbers), lambda lines: sum(one["bytes"] for one in lines)),
    }
    if "levels_by_round" in whole:
        found["levels_by_round"] = whole["levels_by_round"]
    if "privacy" in whole:
        found["privacy"] = {name: whole["privacy"].get(name) for name in ("epsilon", "delta", "assumptions", "reason")}
    if "personal" in whole:
        found["personal"] = whole["personal"]
        found["personal_by_round"] = _each(_accepted(ledger, numbers), _personal)
    return found


def model_figures(folder: Path) -> dict[str, Any]:
    """Returns sizes, mean kurtosis and share of values other than zero of the final model in a run's folder."""
    import torch

    from models.weights.kure import mean_kurtosis
    from wire.frame import Kind, decode_frame
    from wire.spec import ModelSpec
    from wire.stages.tensors import Codec

    spec = ModelSpec.from_json(json.loads((folder / "spec.json").read_text()))
    frame = decode_frame((folder / "model.blob").read_bytes(), Kind.BLOB)
    model = Codec.of(spec.trainable, (), "update").decode(frame.payload)
    weights = {name: torch.from_numpy(values.copy()) for name, values in model.items() if values.ndim > 1}
    return {
        "params": spec.count,
        "params_with_frozen": sum(tensor.count for tensor in (*spec.trainable, *spec.frozen)),
        "kurtosis": mean_kurtosis(list(weights.values())),
        "nonzero": {name: float((values != 0).double().mean()) for name, values in weights.items()},
    }


def _measured(line: Line, numbers: Sequence[int]) -> dict[str, Any]:
    """Returns a measurement with the number of rounds that were done by then."""
    done = sum(number <= line["round"] for number in numbers)
    return {"rounds": done, **{name: _short(line[name]) for name in _MEASURED if name in line}}


def _short(value: Any) -> Any:
    """Returns six digits of every number: as many as 10,000 examples give, and a third of the bytes."""
    if isinstance(value, Mapping):
        return {name: _short(item) for name, item in value.items()}
    return round(value, 6) if isinstance(value, float) else value


def _accepted(ledger: Iterable[Line], numbers: Sequence[int]) -> list[list[Line]]:
    by_round: dict[int, list[Line]] = {number: [] for number in numbers}
    for line in ledger:
        if line["event"] == "accepted" and line["into"] in by_round:
            by_round[line["into"]].append(line)
    return [by_round[number] for number in numbers]


def _each(rounds: Iterable[list[Line]], read: Any) -> list[Any]:
    return [read(lines) for lines in rounds]


def _loss(lines: Sequence[Line]) -> float | None:
    """Returns the loss of the model that the round began with, over the examples of those who took part."""
    known = [(line["metrics"]["loss_before"], line["examples"]) for line in lines if "loss_before" in line["metrics"]]
    mean = mean_loss(known)
    return None if mean is None else round(mean, 7)


def _personal(lines: Sequence[Line]) -> dict[str, float]:
    """Returns the means over the devices that reported a figure."""
    values = {name: [one["metrics"][name] for one in lines if name in one["metrics"]] for name in _PERSONAL}
    return {name: round(fmean(found), 6) for name, found in values.items() if found}


def _bytes(ledger: Iterable[Line], numbers: Sequence[int], way: str) -> list[int]:
    """Returns the bytes of each published round, all devices together; those of abandoned rounds go to the next one."""
    totals = [0] * len(numbers)
    for line in ledger:
        if line["event"] == "traffic" and numbers:
            at = min(sum(number < line["round"] for number in numbers), len(numbers) - 1)
            totals[at] += sum(line[way].values())
    return totals
