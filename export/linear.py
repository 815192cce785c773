"""Linear layers as Gemm: torch's exporter writes those without bias, and those on more than two dimensions, as MatMul.

A MatMul by the transpose of a parameter becomes a Gemm by the parameter itself, output channels first, which is what
forms and integer kernels are made for; the Add of a bias goes into it. A value of more than two dimensions is laid out
in rows for it, and laid back where anything but another such layer, or a Relu before one, reads what it gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from wire.params import Array

__all__ = ["as_gemms"]

Values = npt.NDArray[np.generic]
Lead = tuple[int, ...] | str
"""The sides of a value but for the last, -1 for one that is not known; or the value that holds them."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """A Gemm to be: its weight, its bias if it has one, and the value that it gives."""

    weight: str
    bias: str
    output: str


@dataclass
class _Rows:
    """Grows by `gemm`, `relu`, `other` and `back`. `rows` has names of values in rows, `leads` their sides but for the
    last, `owed` the last one of those that are in rows only.
    """

    shapes: Mapping[str, tuple[int, ...]]
    tensors: dict[str, Values]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    rows: dict[str, str] = field(default_factory=dict)
    leads: dict[str, Lead] = field(default_factory=dict)
    owed: dict[str, int] = field(default_factory=dict)

    def gemm(self, value: str, layer: _Layer) -> None:
        """Adds the layer, of this input."""
        after, width = self.tensors[layer.weight].shape
        given = layer.output
        if len(self.shapes.get(value, ())) != 2:
            self._lay(value, width)
            given = self._owe(layer.output, self.leads[value], after)
        read = [self.rows.get(value, value), layer.weight, *([layer.bias] if layer.bias else [])]
        self.nodes.append(helper.make_node("Gemm", read, [given], transB=1))

    def relu(self, node: onnx.NodeProto) -> None:
        """Adds a Relu of what is in rows only: its output is so, too."""
        value = node.input[0]
        given = self._owe(node.output[0], self.leads[value], self.owed[value])
        self.nodes.append(helper.make_node("Relu", [self.rows[value]], [given]))

    def other(self, node: onnx.NodeProto) -> None:
        """Adds any other node."""
        for value in node.input:
            self.back(value)
        self.nodes.append(node)

    def back(self, value: str) -> None:
        """Lays a value back if it is in rows only."""
        if value in self.owed:
            lead, last = self.leads[value], self.owed.pop(value)
            if isinstance(lead, str):
                sides = f"{value}/sides"
                self.nodes.append(helper.make_node("Concat", [lead, self._constant(last)], [sides], axis=0))
            else:
                sides = self._constant(*lead, last)
            self.nodes.append(helper.make_node("Reshape", [self.rows[value], sides], [value]))

    def _lay(self, value: str, width: int) -> None:
        """Lays a value out in rows, unless it is."""
        if value in self.rows:
            return
        self.leads[value], self.rows[value] = self._lead(value), f"{value}/rows"
        self.nodes.append(helper.make_node("Reshape", [value, self._constant(-1, width)], [self.rows[value]]))

    def _lead(self, value: str) -> Lead:
        lead = self.shapes[value][:-1] if value in self.shapes else (-1, -1)
        if lead.count(-1) < 2:
            return lead
        self.nodes.append(helper.make_node("Shape", [value], [f"{value}/lead"], start=0, end=-1))
        return f"{value}/lead"

    def _owe(self, value: str, lead: Lead, last: int) -> str:
        """Returns the name that a value has in rows, where alone it will be."""
        self.rows[value], self.leads[value], self.owed[value] = f"{value}/rows", lead, last
        return self.rows[value]

    def _constant(self, *sides: int) -> str:
        name = f"/sides {sides}"
        self.tensors[name] = np.array(sides, np.int64)
        return name


def as_gemms(model: onnx.ModelProto, parameters: Iterable[Array]) -> onnx.ModelProto:
    """Returns the model with a Gemm in place of each MatMul by the transpose of a parameter, no two of them alike."""
    graph = model.graph
    tensors: dict[str, Values] = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = _layers(graph, tensors, list(parameters))
    if not layers:
        return model
    merged = {layer.output for name, layer in layers.items() if layer.output != name}
    rows = _Rows(_shapes(model), tensors)
    for node in graph.node:
        if node.output[0] in layers:
            rows.gemm(node.input[0], layers[node.output[0]])
        elif node.op_type == "Relu" and node.input[0] in rows.owed:
            rows.relu(node)
        elif node.output[0] not in merged:
            rows.other(node)
    for one in graph.output:
        rows.back(one.name)
    read = {name for node in rows.nodes for name in node.input}
    stored = [numpy_helper.from_array(values, name) for name, values in tensors.items() if name in read]
    made = helper.make_graph(rows.nodes, graph.name, list(graph.input), list(graph.output), stored)
    return helper.make_model(made, opset_imports=model.opset_import, ir_version=model.ir_version)


def _layers(graph: onnx.GraphProto, tensors: dict[str, Values], parameters: Sequence[Array]) -> dict[str, _Layer]:
    """Returns the layers by what their MatMul gives; adds to the tensors the weights that are not there yet."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for value in node.input:
            readers.setdefault(value, []).append(node)
    ends = {one.name for one in graph.output}
    layers = {}
    for node in graph.node:
        weight = _turned(node.input[1], tensors, parameters) if node.op_type == "MatMul" else ""
        if weight:
            output = node.output[0]
            after = readers.get(output, []) if output not in ends else []
            bias = _bias(after[0], output, tensors, len(tensors[weight])) if len(after) == 1 else ""
            layers[output] = _Layer(weight, bias, after[0].output[0] if bias else output)
    return layers


def _turned(name: str, tensors: dict[str, Values], parameters: Sequence[Array]) -> str:
    """Returns the tensor that is this one's transpose, if the net has such a parameter; nothing if it has none."""
    if name not in tensors or tensors[name].ndim != 2:
        return ""
    turned = tensors[name].T
    if not any(np.array_equal(turned, values) for values in parameters):
        return ""
    there = (other for other, values in tensors.items() if np.array_equal(turned, values))
    found = next(there, f"{name}/turned")
    tensors[found] = np.ascontiguousarray(turned)
    return found


def _bias(node: onnx.NodeProto, value: str, tensors: Mapping[str, Values], count: int) -> str:
    """Returns the bias of so many outputs that this node adds to the value, if it does."""
    other = next((name for name in node.input if name != value), "")
    return other if node.op_type == "Add" and other in tensors and tensors[other].shape == (count,) else ""


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Returns the shapes that are known, -1 for a side that is not."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    kinds = {one.name: one.type.tensor_type for one in (*graph.input, *graph.value_info)}
    return {
        name: tuple(side.dim_value or -1 for side in kind.shape.dim)
        for name, kind in kinds.items()
        if kind.HasField("shape")
    }
