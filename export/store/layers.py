"""The layers of a float graph whose weights get forms, and the weights themselves; nothing here loads torch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from wire.params import Array

__all__ = ["IR_VERSION", "OPSET", "WEIGHTED", "replaced", "weighted_nodes", "weights_of"]

OPSET = 18
IR_VERSION = 8
WEIGHTED = ("Conv", "Gemm")


def weights_of(model: onnx.ModelProto) -> dict[str, Array]:
    """Returns the weight of every Conv and Gemm, by name and in the graph's order."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    named = {node.input[1]: tensors[node.input[1]] for node in weighted_nodes(model)}
    return {name: numpy_helper.to_array(tensor).astype(np.float32) for name, tensor in named.items()}


def replaced(model: onnx.ModelProto, weights: Mapping[str, Array]) -> onnx.ModelProto:
    """Returns a copy with these initialisers in place of its own, as for ranges that rounded weights call for."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(weights[tensor.name]), tensor.name))
    return copy


def weighted_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Returns the nodes whose weights get forms: Conv and Gemm with output channels first."""
    tensors = {tensor.name for tensor in model.graph.initializer}
    return [node for node in model.graph.node if node.op_type in WEIGHTED and node.input[1] in tensors]
