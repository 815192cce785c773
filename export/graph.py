"""The float model as an ONNX graph whose initialisers are named as the net names its parameters.

The exporter is run on a net whose parameters hold the numbers of their own elements (as bit patterns of tiny floats)
in place of their values. So every initialiser tells which parameter it is, reshaped or transposed, and parameters of
equal values are not merged into one; the true values are put in afterwards.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper

from export.idle import without_idle
from export.linear import as_gemms
from export.refused import ExportError
from export.store.layers import IR_VERSION, OPSET, TURNED, WEIGHTED, left_of, replaced, weighted_nodes, weights_of
from export.store.sheet import Sheet
from models.init import frozen
from models.nets import build, load
from wire.params import Array, Params, check_shapes
from wire.spec import ModelSpec

__all__ = [
    "INPUT",
    "IR_VERSION",
    "OPSET",
    "OUTPUT",
    "float_graph",
    "left_of",
    "replaced",
    "weighted_nodes",
    "weights_of",
]

INPUT = "input"
OUTPUT = "output"

_FIRST = 0x00800000  # the bit pattern of the least normal float32


def float_graph(
    spec: ModelSpec, params: Mapping[str, Array], still: Mapping[str, Array] | None = None
) -> onnx.ModelProto:
    """Returns the float model of these trainable tensors; frozen ones are `still`, or rebuilt from the spec's seed."""
    check_shapes(params, spec.trainable)
    still = frozen(spec) if still is None else still
    check_shapes(still, spec.frozen)
    net = build(spec, still)
    values = {**params, **still}
    names = [name for name, _ in net.named_parameters()]
    numbered = _numbered({name: values[name] for name in names})
    load(net, numbered)
    return _tidied(as_gemms(_traced(net, spec), numbered.values()), {name: values[name] for name in names})


def _numbered(values: Mapping[str, Array]) -> Params:
    start, numbered = _FIRST, {}
    for name, value in values.items():
        numbers = np.arange(start, start + value.size, dtype=np.uint32)
        numbered[name] = numbers.view(np.float32).reshape(value.shape)
        start += value.size
    return numbered


def _traced(net: torch.nn.Module, spec: ModelSpec) -> onnx.ModelProto:
    file = io.BytesIO()
    net.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is called the old one
        try:
            torch.onnx.export(
                net,
                (torch.zeros(2, *spec.input),),
                file,  # type: ignore[arg-type]  # the old exporter writes to files in memory as well
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as exc:
            raise ExportError(f"{spec.arch!r} cannot be written as ONNX: {str(exc)[:300]}") from exc
    model = onnx.load_model_from_string(file.getvalue())
    got = [(one.domain, one.version) for one in model.opset_import]
    if got != [("", OPSET)]:
        raise ExportError(f"{spec.arch!r} needs the operators {got}", remedy=f"use layers that opset {OPSET} has")
    return without_idle(model)


def _tidied(model: onnx.ModelProto, params: Params) -> onnx.ModelProto:
    """Returns the model with the parameters in place, short names, and its constants as shared initialisers."""
    sheet, names = Sheet(mark="g"), {INPUT: INPUT, OUTPUT: OUTPUT, "": ""}
    for old, values in _constants(model):
        known = _named(values, params)
        plain = known[0].removeprefix(TURNED) if known else ""
        if plain in sheet.tensors or TURNED + plain in sheet.tensors:
            raise ExportError(f"parameter {plain!r} is used in two layouts", remedy="keep two parameters")
        names[old] = sheet.tensor(*known) if known else sheet.constant(values, values.dtype)
    for at, node in enumerate(node for node in model.graph.node if node.op_type != "Constant"):
        if any(one.type == onnx.AttributeProto.GRAPH for one in node.attribute):
            raise ExportError(f"the net holds a branch or loop ({node.op_type})", remedy="compute without if and while")
        for place, output in enumerate(node.output):
            names.setdefault(output, f"/{at}.{place}" if place else f"/{at}")
        kept = [names[name] for name in node.input]
        layer = kept[1].removesuffix(".weight") if node.op_type in WEIGHTED else ""
        label = f"{layer}/{at}" if layer in {other.name for other in sheet.nodes if layer} else layer
        made = onnx.helper.make_node(node.op_type, kept, [names[name] for name in node.output], name=label)
        made.attribute.extend(sorted(node.attribute, key=lambda one: one.name))
        sheet.nodes.append(made)
    graph = onnx.helper.make_graph(
        sheet.nodes, "bitfleet", list(model.graph.input), list(model.graph.output), list(sheet.tensors.values())
    )
    return onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=IR_VERSION)


def _constants(model: onnx.ModelProto) -> Iterator[tuple[str, npt.NDArray[np.generic]]]:
    for tensor in model.graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor)
    for node in model.graph.node:
        if node.op_type == "Constant":
            yield node.output[0], numpy_helper.to_array(node.attribute[0].t)


def _named(numbers: npt.NDArray[np.generic], params: Params) -> tuple[str, Array] | None:
    """Returns the name of the parameter whose elements have these numbers, and its values in the same places; the name
    is marked if the parameter is no vector, and its elements lie otherwise in the net.
    """
    if numbers.dtype != np.float32 or not numbers.size:
        return None
    at = np.ascontiguousarray(numbers).view(np.uint32).astype(np.int64).reshape(-1) - _FIRST
    for name, value in params.items():
        if 0 <= at[0] < value.size:
            if not np.array_equal(np.sort(at), np.arange(value.size)):
                raise ExportError(f"parameter {name!r} is changed before it is used", remedy="use it as it is")
            own = value.ndim < 2 or (numbers.shape == value.shape and np.array_equal(at, np.arange(value.size)))
            return name if own else TURNED + name, value.reshape(-1)[at].reshape(numbers.shape)
        at -= value.size
    return None
