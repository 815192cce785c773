"""Which values of a float graph become UINT8, so that the runtime makes every Conv and Gemm an integer kernel.

What feeds a Conv or Gemm is quantised, and so is what comes out of one, or of the Relu that alone follows it. MaxPool,
Flatten and Reshape only move numbers, so what they give has the scale of what they take; a global average has both its
ends quantised. The last output stays float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import onnx

from export.store.layers import weighted_nodes

__all__ = ["Plan", "plan_of"]

_MOVERS = ("MaxPool", "Flatten", "Reshape")


@dataclass(frozen=True)
class Plan:
    """`scale_of` maps each value that is quantised to the one whose range it has; `free` are the values to measure."""

    scale_of: dict[str, str] = field(default_factory=dict)

    @property
    def free(self) -> tuple[str, ...]:
        """Returns the values whose ranges are measured, in the order of the graph."""
        return tuple(dict.fromkeys(self.scale_of.values()))


def plan_of(model: onnx.ModelProto) -> Plan:
    """Returns what is quantised in this float graph."""
    producers = {output: node for node in model.graph.node for output in node.output}
    ends = {one.name for one in model.graph.output}
    wanted: dict[str, str] = {}
    for node in weighted_nodes(model):
        _want(node.input[0], producers, wanted)
        tail = _tail(node, model)
        if tail not in ends:
            _want(tail, producers, wanted)
    return Plan(wanted)


def _want(value: str, producers: Mapping[str, onnx.NodeProto], wanted: dict[str, str]) -> str:
    """Marks a value and what it takes its range from; returns the value whose range it has."""
    if value not in wanted:
        producer = producers.get(value)
        kind = producer.op_type if producer else ""
        if producer and kind in _MOVERS:
            wanted[value] = _want(producer.input[0], producers, wanted)
        else:
            if producer and kind == "GlobalAveragePool":
                _want(producer.input[0], producers, wanted)
            wanted[value] = value
    return wanted[value]


def _tail(node: onnx.NodeProto, model: onnx.ModelProto) -> str:
    readers = [other for other in model.graph.node if node.output[0] in other.input]
    alone = len(readers) == 1 and readers[0].op_type == "Relu"
    return str(readers[0].output[0] if alone else node.output[0])
