"""Ranges of activations, measured on calibration inputs, and the graph in integer arithmetic that follows from them.

An activation becomes q = round(x / scale) + zero, a UINT8 value; its range is widened to hold 0, so that 0 is exact.
Rules for the range:

    minmax       from the least to the greatest value seen
    percentile   without the outermost 0.005 % at either end
    mse          min-max shrunk at either end by the share that leaves the least squared error

A weight is INT8 with one scale an output channel, a bias INT32 in units of (input scale * weight scale).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from export.refused import ExportError
from export.sessions import open_session, run
from export.store.layers import weighted_nodes
from export.store.quantised import Plan, plan_of
from export.store.sheet import Sheet
from wire.params import Array

__all__ = ["ACTIVATION_RANGES", "Activations", "add_integer_graph", "ranges_of"]

ACTIVATION_RANGES = ("minmax", "percentile", "mse")

_BINS = 2048
_OUTERMOST = 5e-5
_MOST = 2.0**31 - 1


@dataclass(frozen=True)
class Activations:
    """The scale and the zero of each measured value of the float graph, and how they were found."""

    scale: Mapping[str, np.float32]
    zero: Mapping[str, int]
    rule: str
    examples: int


def ranges_of(model: onnx.ModelProto, inputs: Array, rule: str = "minmax", batch: int = 64) -> Activations:
    """Returns the grids of all activations that become UINT8, from these calibration inputs."""
    if rule not in ACTIVATION_RANGES or not len(inputs):
        raise ExportError(
            f"range {rule!r} of activations from {len(inputs)} inputs",
            remedy=f"choose of {ACTIVATION_RANGES}, and give at least one input",
        )
    values = plan_of(model).free
    seen_in = _runner(model, values)
    ends = dict.fromkeys(values, (0.0, 0.0))
    for start in range(0, len(inputs), batch):
        for name, seen in seen_in(inputs[start : start + batch]).items():
            ends[name] = (min(ends[name][0], _finite(name, seen.min())), max(ends[name][1], _finite(name, seen.max())))
    if rule != "minmax":
        counts = {name: np.zeros(_BINS) for name in values}
        for start in range(0, len(inputs), batch):
            for name, seen in seen_in(inputs[start : start + batch]).items():
                counts[name] += np.histogram(seen, _BINS, _wide(ends[name]))[0]
        narrow = _percentile if rule == "percentile" else _least_squares
        ends = {name: narrow(counts[name], *_wide(ends[name])) for name in values}
    grids = {name: _grid(*ends[name]) for name in values}
    return Activations({n: g[0] for n, g in grids.items()}, {n: g[1] for n, g in grids.items()}, rule, len(inputs))


def add_integer_graph(
    sheet: Sheet, model: onnx.ModelProto, activations: Activations, scales: Mapping[str, Array]
) -> None:
    """Adds the nodes of `model` in integer arithmetic; the sheet has INT8 values named as the weights."""
    plan = plan_of(model)
    missing = [name for name in plan.free if name not in activations.scale]
    if missing:
        raise ExportError(f"no range for the values {missing[:5]}", remedy="measure ranges on this very model")
    weighted = {node.name or node.output[0] for node in weighted_nodes(model)}
    floats = {tensor.name: tensor for tensor in model.graph.initializer}
    ends = {one.name for one in model.graph.output}
    known: dict[str, str] = {}  # the float values that are read in place of others
    _add_rounded(sheet, plan, activations, known, *(one.name for one in model.graph.input))
    for node in model.graph.node:
        inputs = [
            _add_weight(sheet, name, scales[name]) if name in scales else known.get(name, name) for name in node.input
        ]
        if (node.name or node.output[0]) in weighted:
            units = activations.scale[plan.scale_of[node.input[0]]] * scales[node.input[1]]
            inputs[2:] = [_add_bias(sheet, floats.get(name), units) for name in node.input[2:]]
        output = node.output[0]
        if node.op_type == "Relu" and _clips_at_zero(plan, activations, output) and output not in ends:
            known[output] = inputs[0]  # what rounds it to UINT8 gives 0 for all that is below
        else:
            made = onnx.NodeProto()
            made.CopyFrom(node)
            made.input[:] = inputs
            sheet.nodes.append(made)
        _add_rounded(sheet, plan, activations, known, *node.output)


def _add_rounded(sheet: Sheet, plan: Plan, activations: Activations, known: dict[str, str], *values: str) -> None:
    for value in values:
        if value in plan.scale_of:
            grid = plan.scale_of[value]
            scale = sheet.constant(activations.scale[grid], np.float32)
            zero = sheet.constant(activations.zero[grid], np.uint8)
            rounded = sheet.node("QuantizeLinear", known.get(value, value), scale, zero)
            known[value] = sheet.node("DequantizeLinear", rounded, scale, zero)


def _clips_at_zero(plan: Plan, activations: Activations, value: str) -> bool:
    return value in plan.scale_of and activations.zero[plan.scale_of[value]] == 0


def _add_weight(sheet: Sheet, name: str, scale: Array) -> str:
    zeros = sheet.constant(np.zeros(scale.size), np.int8)
    return sheet.node("DequantizeLinear", name, sheet.tensor(f"{name}/d", scale), zeros, axis=0)


def _add_bias(sheet: Sheet, stored: onnx.TensorProto | None, units: Array) -> str:
    if stored is None:
        raise ExportError("a bias is computed by the net", remedy="make it a parameter, or use the profile float")
    bias = onnx.numpy_helper.to_array(stored)
    whole = np.rint(bias.astype(np.float64) / units)
    if not (np.abs(whole) <= _MOST).all():
        channel = int(np.argmax(np.abs(whole)))
        raise ExportError(
            f"the bias {bias[channel]} of channel {channel} is {whole[channel]:.3g} units, more than INT32 holds",
            remedy="the weights of this channel are next to nothing: train again, or use the profile float",
        )
    place = len(sheet.nodes)
    counted = sheet.tensor(f"/b{place}", whole.astype(np.int32))
    return sheet.node("DequantizeLinear", counted, sheet.tensor(f"/u{place}", units), axis=0)


def _runner(model: onnx.ModelProto, values: tuple[str, ...]) -> Callable[[Array], dict[str, Array]]:
    """Returns the function that gives all these values for a batch of inputs."""
    name = model.graph.input[0].name
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    inner = [value for value in values if value != name]
    watched.graph.ClearField("output")
    for value in inner:
        watched.graph.output.append(onnx.helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None))
    session = open_session(watched.SerializeToString())
    own = [value for value in values if value == name]

    def seen(batch: Array) -> dict[str, Array]:
        found = run(session, batch, inner) if inner else []  # no names would ask for all outputs
        return {**dict.fromkeys(own, batch), **dict(zip(inner, found, strict=True))}

    return seen


def _finite(name: str, value: np.float32) -> float:
    if not np.isfinite(value):
        raise ExportError(f"the value {name!r} of the net is {value} on the calibration inputs", remedy="train again")
    return float(value)


def _wide(ends: tuple[float, float]) -> tuple[float, float]:
    return ends if ends[1] > ends[0] else (0.0, 1.0)


def _grid(low: float, high: float) -> tuple[np.float32, int]:
    scale = np.float32((high - low) / 255) if high - low > 1e-30 else np.float32(1 / 255)
    return scale, int(np.clip(np.rint(-low / float(scale)), 0, 255))


def _percentile(counts: npt.NDArray[np.float64], low: float, high: float) -> tuple[float, float]:
    share = np.cumsum(counts) / counts.sum()
    edges = np.linspace(low, high, _BINS + 1)
    left, right = np.searchsorted(share, [_OUTERMOST, 1 - _OUTERMOST])
    return min(float(edges[left]), 0.0), max(float(edges[min(right, _BINS - 1) + 1]), 0.0)


def _least_squares(counts: npt.NDArray[np.float64], low: float, high: float) -> tuple[float, float]:
    edges = np.linspace(low, high, _BINS + 1)
    seen = (edges[1:] + edges[:-1]) / 2

    def lost(ends: tuple[float, float]) -> float:
        scale, zero = _grid(*ends)
        back = (np.clip(np.rint(seen / scale) + zero, 0, 255) - zero) * scale
        return float((counts * np.square(back - seen)).sum())

    shares = 1.0 - np.arange(40) / 50
    best = min(((low, high * share) for share in shares), key=lost)
    return min(((best[0] * share, best[1]) for share in shares if low < 0), key=lost, default=best)
