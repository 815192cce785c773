"""The layers of a float graph whose weights get forms, and the weights themselves; nothing here loads torch."""

from __future__ import annotations

from collections.abc import Container, Mapping
from math import prod

import numpy as np
import onnx
from onnx import numpy_helper

from export.refused import ExportError
from wire.params import Array

__all__ = ["IR_VERSION", "OPSET", "TURNED", "WEIGHTED", "left_of", "replaced", "weighted_nodes", "weights_of"]

OPSET = 18
IR_VERSION = 8
WEIGHTED = ("Conv", "Gemm")
TURNED = "/turned/"
"""Before the name of a parameter that the graph holds otherwise than the net does: no form of it could be proven."""


def weights_of(model: onnx.ModelProto) -> dict[str, Array]:
    """Returns the weight of every Conv and Gemm, by name and in the graph's order; ExportError if there are none."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    named = {node.input[1]: tensors[node.input[1]] for node in weighted_nodes(model)}
    if not named:
        raise ExportError(
            f"the net has no weights that can be stored in few bits; it has {sorted(_left(tensors, named)) or 'none'}",
            remedy="use Linear and Conv layers, whose weights are parameters",
        )
    return {name: numpy_helper.to_array(tensor).astype(np.float32) for name, tensor in named.items()}


def left_of(model: onnx.ModelProto) -> dict[str, int]:
    """Returns the parameters that stay float32 as no form reaches them, and how many values each has, but for vectors:
    what other layers read (ConvTranspose, Gather), and weights that do not have output channels first.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    return _left(tensors, {node.input[1] for node in weighted_nodes(model)})


def replaced(model: onnx.ModelProto, weights: Mapping[str, Array]) -> onnx.ModelProto:
    """Returns a copy with these initialisers in place of its own, as for ranges that rounded weights call for."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weights[tensor.name]), tensor.name))
    return copy


def weighted_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Returns the nodes whose weights get forms: Conv and Gemm by a parameter, output channels first."""
    tensors = {tensor.name for tensor in model.graph.initializer if not tensor.name.startswith("/")}
    return [node for node in model.graph.node if _is_weighted(node) and node.input[1] in tensors]


def _is_weighted(node: onnx.NodeProto) -> bool:
    turned = any(one.name == "transB" and one.i for one in node.attribute)
    return node.op_type in WEIGHTED and (turned or node.op_type != "Gemm")


def _left(tensors: Mapping[str, onnx.TensorProto], reached: Container[str]) -> dict[str, int]:
    others = {name.removeprefix(TURNED): tensor.dims for name, tensor in tensors.items() if name not in reached}
    return {n: prod(dims) for n, dims in others.items() if not n.startswith("/") and sum(side > 1 for side in dims) > 1}
