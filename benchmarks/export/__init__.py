"""Sizes and latency of exported files: a CNN of a million parameters, and what nets of 20,000 to 25,000 carry beside.

All nets are as they start: sizes and times do not depend on training. Each file passes the export's own gate, which
times it beside the float model: one thread, batch 1, interleaved, the median of each round's own ratio. Files of 4 and
2 bits are made in ONNX's own types as well (--packing native): figures, no requirements.

nodes     a file without the data of its tensors: nodes, names, shapes, metadata
beside    a file without its parameters at their width: nodes, and grids, biases and norms in float32
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import Figure, Requirement, Result, at_most

__all__ = ["run"]

_LARGE, _SMALL = "cnn-64-128-256-256", "cnn-16-32"
_OTHERS = ("mlp-32", "mobile-16-32-128-128", "resnet8-8")
_INPUT = (1, 28, 28)
_LIMITS = {
    "int8": {8: 0.260, 6: 0.200, 5: 0.170, 4: 0.136, 3: 0.105, 2: 0.073},
    "float": {8: 0.258, 6: 0.195, 5: 0.163, 4: 0.131, 3: 0.099, 2: 0.067},
}
_OVERHEAD = 12_000
_LATENCY = 0.5


def run(options: Sequence[str]) -> Result:
    """Exports all nets and reads their reports."""
    parser = argparse.ArgumentParser(prog="scripts/bench export")
    parser.add_argument("--rounds", type=int, default=41, help="rounds of each timing (%(default)s)")
    asked = parser.parse_args(options)
    with tempfile.TemporaryDirectory() as name:
        folders = {arch: Path(name) / arch for arch in (_LARGE, _SMALL)}
        large, small = (_report(arch, asked.rounds, folder) for arch, folder in folders.items())
        little = {_SMALL: small} | {arch: _report(arch, 1, Path(name) / arch) for arch in _OTHERS}
        nodes = {arch: _nodes(report, Path(name) / arch) for arch, report in little.items()}
        native = _native(asked.rounds, *folders.values())
    figures: dict[str, Figure] = {"large": _LARGE, "large_parameters": large["parameters"]}
    figures |= {"float_bytes": large["float"]["bytes"], "float_latency_ms": large["float"]["latency_ms"]}
    requirements: list[Requirement] = []
    for one in large["variants"]:
        name, bits = one["name"], round(one["bits"])
        figures |= {f"{name}_over_float": one["size_ratio"], f"{name}_latency_ratio": one["latency_ratio"]}
        figures |= {f"{name}_load_ms": one["load_ms"], f"{name}_load_ratio": one["load_ratio"]}
        requirements.append(at_most(f"{name} size over float", _LIMITS[one["profile"]][bits], one["size_ratio"]))
        if one["profile"] == "int8":
            requirements.append(at_most(f"{name} latency over float", _LATENCY, one["latency_ratio"]))
    for arch, report in little.items():
        figures[f"{arch} parameters"] = report["parameters"]
        for one in report["variants"]:
            figures[f"{arch} {one['name']} beside"] = _beside_weights(one, report)
            figures[f"{arch} {one['name']} nodes"] = nodes[arch][one["name"]]
            requirements.append(at_most(f"{arch} {one['name']} nodes", _OVERHEAD, nodes[arch][one["name"]]))
    figures |= native
    refused = [one for report in (large, *little.values()) for one in report["refused"]]
    requirements.append(at_most("files refused by the gate", 0, len(refused)))
    figures |= {f"refused {one['name']}": one["reason"] for one in refused}
    return Result(figures, tuple(requirements))


def _native(rounds: int, planes: Path, small: Path) -> dict[str, Figure]:
    """Returns the figures of both nets with 4 and 2 bits in ONNX's own types, timed beside the files of bit planes."""
    figures: dict[str, Figure] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        large = _report(_LARGE, rounds, folder, bits=(4, 2), packing="native")
        for one in large["variants"]:
            figures |= {f"{one['name']}_native_{what}": value for what, value in _beside(one, folder, planes, rounds)}
    little = _report(_SMALL, rounds, small, bits=(4, 2), packing="native")
    for one in little["variants"]:
        figures[f"{_SMALL} {one['name']} native beside"] = _beside_weights(one, little)
    return figures | {f"refused native {one['name']}": one["reason"] for one in (*large["refused"], *little["refused"])}


def _beside(one: Mapping[str, Any], folder: Path, planes: Path, rounds: int) -> list[tuple[str, Figure]]:
    from export.proof.clocks import race
    from export.sessions import answers, open_session

    new, old = ((each / one["file"]).read_bytes() for each in (folder, planes))
    x = np.zeros((1, *_INPUT), np.float32)
    sessions = open_session(new), open_session(old)
    load = race(lambda: open_session(new), lambda: open_session(old), min(rounds, 15))
    latency = race(lambda: answers(sessions[0], x), lambda: answers(sessions[1], x), rounds, calls=5)
    return [
        ("min_runtime", one["min_runtime"]),
        ("over_float", one["size_ratio"]),
        ("over_planes", len(new) / len(old)),
        ("load_ms", load.first_ms),
        ("load_over_planes", load.ratio),
        ("latency_over_planes", latency.ratio),
    ]


def _report(arch: str, rounds: int, folder: Path, **wish: Any) -> dict[str, Any]:
    from export.ladder.make import Wish, make_ladder
    from export.ladder.source import Source
    from models.archs import spec_of
    from models.data import load
    from models.init import initial

    spec = spec_of(arch, _INPUT, 10, 1)
    data = load("fashion", "test")
    source = Source(spec, initial(spec), arch, data.take(np.arange(320)), calibration=256)
    return make_ladder(source, Wish(rounds=rounds, **wish), folder)


def _nodes(report: Mapping[str, Any], folder: Path) -> dict[str, int]:
    """Returns by file the bytes that are not data of tensors."""
    import onnx

    found = {}
    for one in report["variants"]:
        tensors = onnx.load(folder / f"{one['name']}.onnx").graph.initializer
        found[one["name"]] = int(one["bytes"]) - sum(len(each.raw_data) for each in tensors)
    return found


def _beside_weights(one: Mapping[str, Any], report: Mapping[str, Any]) -> int:
    return int(one["bytes"] - report["parameters"] * one["bits"] / 8)
