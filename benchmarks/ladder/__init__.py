"""Trained models on the ladder: multi-bit QAT beside FedAvg on Fashion-MNIST, mixed widths, and the nested bundle.

Both are trained by the simulator with the same net (cnn-16-32), seed, devices and settings (20 devices, dirichlet:0.5,
10 a round, 40 rounds). That net loses nothing at 3 bits, so what mixing widths wins is asked of another (mixing.py),
and only stated of these. Accuracies are of the ONNX files, on the test examples that chose nothing. What was trained or
measured is kept in --work: stopped, it goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.ladder.mixing import layer_by_layer
from benchmarks.ladder.nested import nested
from benchmarks.ladder.trained import CALIBRATION, trained
from benchmarks.result import Figure, Requirement, Result, at_most

__all__ = ["run"]

_COMMON = (
    "task=fashion", "model=cnn-16-32", "rounds=40", "devices.goal=10", "split.rule=dirichlet:0.5",
    "split.examples=12000", "train.epochs=1", "train.batch=32", "train.rate=0.05", "train.momentum=0.9",
    "start=uniform", "evaluate.every=40", "evaluate.bits=[]",
)  # fmt: skip
_MQAT = "train.transforms=[{ transform = 'mqat', bits = [2, 3, 4, 5, 6, 8], grid = 'channel', range = 'lsq' }]"
_MODELS: dict[str, tuple[str, ...]] = {"fedavg": (), "mqat": (_MQAT,)}
_LOST = {8: 1.0, 6: 1.0, 5: 1.0, 4: 1.0, 3: 3.0, 2: 8.0}
_DEVICES = 20


def run(options: Sequence[str]) -> Result:
    """Trains what is not trained yet, exports, and compares."""
    parser = argparse.ArgumentParser(prog="scripts/bench ladder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / f"bitfleet-ladder-{os.getuid()}")
    parser.add_argument("--picture", type=Path, help="leave the picture of both models here")
    asked = parser.parse_args(options)
    figures: dict[str, Figure] = {"seed": asked.seed, "calibration": CALIBRATION}
    limits: list[Requirement] = []
    reports = []
    for name, own in _MODELS.items():
        folder = asked.work / f"{name}.{asked.seed}"
        source = replace(trained(name, (*_COMMON, *own), folder, asked.seed, _DEVICES), model=name)
        report = _uniform(source, folder / "export", figures)
        _mixed(name, source, report, asked.work, figures)
        reports.append(report)
        if name == "mqat":
            limits += _trained(report)
            limits += nested(source, asked.work, figures)
    mixing, gains = layer_by_layer(asked.work)
    figures |= mixing
    limits += gains
    if asked.picture:
        from export.ladder.report import draw

        draw(reports, asked.picture)
    return Result(figures, tuple(limits))


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


def _mixed(name: str, source: Any, report: Mapping[str, Any], work: Path, figures: dict[str, Figure]) -> None:
    """Adds how accurate the mixed file is that is no larger than an even one."""
    from export.ladder.make import Wish, make_ladder
    from export.ladder.mixed import Budget

    for bits in (4, 3):
        even = next(one for one in report["variants"] if one["name"] == f"int8-{bits}")
        wish = Wish((), ("int8",), budget=Budget(most_bytes=even["bytes"]), rounds=1)
        (own,) = make_ladder(source, wish, work / f"{name}-mixed-{bits}")["variants"]
        text = f"{name} mixed at the size of {bits} bits"
        figures |= {text: own["accuracy"], f"{text}, bytes": own["bytes"]}
        figures[f"{text}, widths"] = " ".join(map(str, own["widths"].values()))
