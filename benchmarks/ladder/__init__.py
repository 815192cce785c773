"""Trained models on the ladder: multi-bit QAT beside FedAvg on Fashion-MNIST, mixed widths, and the nested bundle.

All are trained by the simulator with the same seed, devices and settings (20 devices, dirichlet:0.5, 10 a round, 40
rounds), the first two with the net cnn-16-32. That net loses nothing at 3 bits, so there is nothing to win by mixing
widths: what mixing wins is asked of a narrow perceptron, mlp-24-24-24, and stated of all. Accuracies are of the ONNX
files, on the test examples that chose nothing. Stops and goes on where it was (--work).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.result import Figure, Requirement, Result, at_least, at_most

__all__ = ["run"]

_COMMON = (
    "task=fashion", "rounds=40", "devices.goal=10", "split.rule=dirichlet:0.5",
    "split.examples=12000", "train.epochs=1", "train.batch=32", "train.rate=0.05", "train.momentum=0.9",
    "start=uniform", "evaluate.every=40", "evaluate.bits=[]",
)  # fmt: skip
_MQAT = "train.transforms=[{ transform = 'mqat', bits = [2, 3, 4, 5, 6, 8], grid = 'channel', range = 'lsq' }]"
_MODELS = {
    "fedavg": ("fedavg", ("model=cnn-16-32",)),
    "mqat": ("mqat", ("model=cnn-16-32", _MQAT)),
    "narrow": ("fedavg", ("model=mlp-24-24-24",)),
}
_LOST = {8: 1.0, 6: 1.0, 5: 1.0, 4: 1.0, 3: 3.0, 2: 8.0}
_CALIBRATION = 2000
_NESTED_DB = 1.5


def run(options: Sequence[str]) -> Result:
    """Trains what is not trained yet, exports, and compares."""
    parser = argparse.ArgumentParser(prog="scripts/bench ladder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / f"bitfleet-ladder-{os.getuid()}")
    parser.add_argument("--picture", type=Path, help="leave the picture of both models here")
    asked = parser.parse_args(options)
    figures: dict[str, Figure] = {"seed": asked.seed, "calibration": _CALIBRATION}
    limits: list[Requirement] = []
    reports = []
    for name in _MODELS:
        source = _source(name, asked.work / f"{name}.{asked.seed}", asked.seed)
        report = _uniform(source, asked.work / f"{name}.{asked.seed}" / "export", figures)
        gains = _mixed(name, source, report, asked.work, figures)
        if name == "narrow":
            limits += gains
        else:
            reports.append(report)
        if name == "mqat":
            limits += _trained(report)
            limits += _nested(source, asked.work, figures)
    if asked.picture:
        from export.ladder.report import draw

        draw(reports, asked.picture)
    return Result(figures, tuple(limits))


def _source(name: str, folder: Path, seed: int) -> Any:
    from dataclasses import replace

    import torch

    from coordinator.recipe import load_recipe
    from export.ladder.run import read_source
    from simulation.run import Order, simulate

    torch.set_num_threads(1)
    recipe, own = _MODELS[name]
    settings = (*_COMMON, *own, f"seed={seed}", f"split.seed={seed}")
    figures = simulate(Order(load_recipe(recipe, settings), folder, 20))
    return replace(read_source(Path(figures["run_dir"]), calibration=_CALIBRATION), model=name)


def _uniform(source: Any, out: Path, figures: dict[str, Figure]) -> dict[str, Any]:
    from export.ladder.make import Wish, make_ladder
    from export.ladder.report import write_report

    report = make_ladder(source, Wish(rounds=3), out)
    write_report(report, out)
    figures[f"{source.model} float accuracy"] = report["float"]["accuracy"]
    figures |= {f"{source.model} {one['name']} accuracy": one["accuracy"] for one in report["variants"]}
    figures |= {f"{source.model} {one['name']} bytes": one["bytes"] for one in report["variants"]}
    return report


def _trained(report: Mapping[str, Any]) -> list[Requirement]:
    whole = report["float"]["accuracy"]
    return [
        at_most(f"mqat {one['name']}: points lost", _LOST[round(one["bits"])], 100 * (whole - one["accuracy"]))
        for one in report["variants"]
    ]


def _mixed(
    name: str, source: Any, report: Mapping[str, Any], work: Path, figures: dict[str, Figure]
) -> list[Requirement]:
    """Returns how much more accurate the mixed file is than the even one of the same size, in points."""
    from export.ladder.make import Wish, make_ladder
    from export.ladder.mixed import Budget

    limits = []
    for bits in (4, 3):
        even = next(one for one in report["variants"] if one["name"] == f"int8-{bits}")
        wish = Wish((), ("int8",), budget=Budget(most_bytes=even["bytes"]), rounds=1)
        own = make_ladder(source, wish, work / f"{name}-mixed-{bits}")["variants"]
        gain, text = None, f"{name} mixed at the size of {bits} bits"
        if own:
            gain = 100 * (own[0]["accuracy"] - even["accuracy"])
            figures |= {text: own[0]["accuracy"], f"{text}, bytes": own[0]["bytes"]}
            figures[f"{text}, widths"] = " ".join(map(str, own[0]["widths"].values()))
        limits.append(at_least(f"{name} mixed over even {bits} bits, points", 0 if bits == 4 else 0.01, gain))
    return limits


def _nested(source: Any, work: Path, figures: dict[str, Figure]) -> list[Requirement]:
    """Returns how much worse nested codes are than codes rounded for each width alone, in decibels."""
    from export.graph import float_graph, weights_of
    from export.grids import RANGES, place
    from export.ladder.make import Wish, make_ladder
    from export.ladder.nested import nested_forms

    report = make_ladder(source, Wish(nested=True, rounds=1), work / "nested")
    limits, weights = [], weights_of(float_graph(source.spec, source.params, source.still))
    for one in report["variants"]:
        bits, profile = round(one["bits"]), one["profile"]
        figures |= {f"nested {one['name']} accuracy": one["accuracy"], f"nested {one['name']} prefix": one["prefix"]}
        figures[f"nested {profile} bundle bytes"] = one["bundle_bytes"]
        alone = max(_db(weights, {n: place(w, bits, r, profile) for n, w in weights.items()}) for r in RANGES)
        below = alone - _db(weights, nested_forms(weights, bits, profile))
        figures[f"nested {one['name']} dB below"] = below
        if bits >= 4:
            limits.append(at_most(f"nested {one['name']} below separate rounding, dB", _NESTED_DB, below))
    limits.append(at_most("nested files refused", 0, len(report["refused"])))
    return limits


def _db(weights: Mapping[str, Any], forms: Mapping[str, Any]) -> float:
    """Returns how far rounding lies below the weights, over all of them."""
    import numpy as np

    lost = sum(float(np.square(forms[name].values().astype(float) - each).sum()) for name, each in weights.items())
    return float(10 * np.log10(sum(float(np.square(each, dtype=float).sum()) for each in weights.values()) / lost))
