"""Nodes that give what they get: a change of memory order leaves them behind, and `.float()` on what is float."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

__all__ = ["without_idle"]


def without_idle(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model without Identity nodes and casts to the type that a value has, but for those at its output."""
    types = _types(model)
    outputs = {one.name for one in model.graph.output}
    same: dict[str, str] = {}
    kept = []
    for node in model.graph.node:
        read = [same.get(name, name) for name in node.input]
        if _idle(node, read, types) and node.output[0] not in outputs:
            same[node.output[0]] = read[0]
        else:
            del node.input[:]
            node.input.extend(read)
            kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def _idle(node: onnx.NodeProto, read: list[str], types: Mapping[str, int]) -> bool:
    if node.op_type == "Cast":
        return bool(types.get(read[0]) == next(one.i for one in node.attribute if one.name == "to"))
    return bool(node.op_type == "Identity")


def _types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    known = {one.name: one.type.tensor_type.elem_type for one in (*graph.input, *graph.value_info)}
    return {**known, **{tensor.name: tensor.data_type for tensor in graph.initializer}}
