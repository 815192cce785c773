"""Exports that no device may end up with: each differs in one thing from a good one, and its report is right for it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

__all__ = ["BROKEN", "CRASHING_RUNTIME", "Broken", "broken_export", "shadow_runtime", "undefined_for_zeros"]

_SIDE, _CHAIN = 256, 300
CRASHING_RUNTIME = '''"""The real ONNX Runtime, which dies of an illegal instruction of any file that says so."""

import importlib
import os
import signal
import sys

_here = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [path for path in sys.path if os.path.abspath(path or os.curdir) != _here]
del sys.modules["onnxruntime"]
_real = importlib.import_module("onnxruntime")  # whoever imports this module gets what stands under its name now
_open = _real.InferenceSession


def _opened(*arguments, **options):
    session = _open(*arguments, **options)
    if "crash" in session.get_modelmeta().custom_metadata_map:
        os.kill(os.getpid(), signal.SIGILL)
    return session


_real.InferenceSession = _opened
'''


def shadow_runtime(folder: Path) -> dict[str, str]:
    """Returns the environment of a device whose ONNX Runtime dies of some files."""
    folder.mkdir()
    (folder / "onnxruntime.py").write_text(CRASHING_RUNTIME)
    return {"PYTHONPATH": str(folder)}


def broken_export(exports: Path, out: Path, variant: str, breaking: Callable[[ModelProto], ModelProto | bytes]) -> Path:
    """Returns a folder with this variant alone, broken; everything else is as the export left it."""
    out.mkdir()
    shutil.copy(exports / "golden.bin", out)
    report = json.loads((exports / "report.json").read_text())
    entry: dict[str, Any] = next(one for one in report["variants"] if one["name"] == variant)
    made = breaking(onnx.load(exports / entry["file"], load_external_data=False))
    data = made if isinstance(made, bytes) else made.SerializeToString()
    if isinstance(made, ModelProto):
        entry["operators"] = sorted({node.op_type for node in made.graph.node})
    entry |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (out / entry["file"]).write_bytes(data)
    (out / "report.json").write_text(json.dumps({**report, "variants": [entry]}))
    return out


def scrambled(model: ModelProto) -> ModelProto:
    """Returns the model with the packed weights of each layer back to front."""
    packed = [tensor for tensor in model.graph.initializer if tensor.name.endswith(".weight/p")]
    assert packed
    for tensor in packed:
        tensor.raw_data = tensor.raw_data[::-1]
    return model


def not_a_number(model: ModelProto) -> ModelProto:
    """Returns the model with one scale of the last layer that is not a number."""
    scales = next(tensor for tensor in model.graph.initializer if tensor.name == "out.weight/s")
    values = numpy_helper.to_array(scales).copy()
    values[0] = np.nan
    scales.CopyFrom(numpy_helper.from_array(values, scales.name))
    return model


def outside(model: ModelProto) -> ModelProto:
    """Returns the model with the values of its first tensor in another file."""
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    return model


def truncated(model: ModelProto) -> bytes:
    """Returns the first two thirds of the file."""
    data: bytes = model.SerializeToString()
    return data[: 2 * len(data) // 3]


def crashing(model: ModelProto) -> ModelProto:
    """Returns the model with the note that the shadow runtime dies of."""
    model.metadata_props.add(key="crash", value="SIGILL")
    return model


def slow(model: ModelProto) -> ModelProto:
    """Returns the model with a long way round whose outcome counts nothing: the same answers, much later."""
    square = np.full((_SIDE, _SIDE), 1 / _SIDE, np.float32)
    names = [f"slow/{at}" for at in range(_CHAIN)]
    nodes = [
        helper.make_node("Reshape", [model.graph.input[0].name, "slow/shape"], ["slow/column"]),
        helper.make_node("MatMul", ["slow/column", "slow/row"], [names[0]]),
        *(helper.make_node("MatMul", [one, "slow/square"], [other]) for one, other in pairwise(names)),
        helper.make_node("Mul", [names[-1], "slow/zero"], ["slow/nothing"]),
        helper.make_node("ReduceSum", ["slow/nothing", "slow/axes"], ["slow/sum"], keepdims=0),
        helper.make_node("Reshape", ["slow/sum", "slow/one"], ["slow/late"]),
    ]
    tensors: dict[str, np.ndarray] = {
        "slow/shape": np.array([-1, 64, 1], np.int64),
        "slow/row": np.ones((1, _SIDE), np.float32),
        "slow/square": square,
        "slow/zero": np.zeros((), np.float32),
        "slow/axes": np.array([1, 2], np.int64),
        "slow/one": np.array([-1, 1], np.int64),
    }
    return _ended(model, nodes, tensors, "Add", "slow/late")


def undefined_for_zeros(model: ModelProto) -> ModelProto:
    """Returns the model with the same answers, but to an example of zeros one that is not a number."""
    nodes = [
        helper.make_node("Flatten", [model.graph.input[0].name], ["odd/flat"]),
        helper.make_node("ReduceSum", ["odd/flat", "odd/axes"], ["odd/sum"], keepdims=1),
        helper.make_node("Div", ["odd/sum", "odd/sum"], ["odd/one"]),
    ]
    return _ended(model, nodes, {"odd/axes": np.array([1], np.int64)}, "Mul", "odd/one")


@dataclass(frozen=True)
class Broken:
    """How a file is broken, the code that a device refuses it with, and words of the reason."""

    breaking: Callable[[ModelProto], ModelProto | bytes]
    code: str
    words: str


BROKEN = {
    "scrambled weights": Broken(scrambled, "E-MODEL-GOLDEN", "an output is off by"),
    "too slow": Broken(slow, "E-MODEL-POLICY", "ms, at most 5"),
    "not a number": Broken(not_a_number, "E-MODEL-NAN", "outputs are not finite"),
    "external data": Broken(outside, "E-MODEL-GRAPH", "its values lie in another file"),
    "truncated": Broken(truncated, "E-MODEL-GRAPH", "bytes announced"),
    "crash of the runtime": Broken(crashing, "E-MODEL-CRASH", "killed by SIGILL"),
}


def _ended(
    model: ModelProto, nodes: list[onnx.NodeProto], tensors: dict[str, np.ndarray], operator: str, by: str
) -> ModelProto:
    """Returns the model with these nodes before a new last one, which joins the outputs and `by`."""
    graph, output = model.graph, model.graph.output[0].name
    for node in graph.node:
        node.output[:] = [f"{name}/before" if name == output else name for name in node.output]
    graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in tensors.items())
    graph.node.extend([*nodes, helper.make_node(operator, [f"{output}/before", by], [output])])
    return model
