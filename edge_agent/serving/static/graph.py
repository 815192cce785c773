"""Looks at an ONNX file before any runtime does, with the standard library only.

A file passes if it stands alone (no external data, no functions, nothing sparse), uses operators of the standard domain
that the manifest names and this list knows, in an order without cycles, holds as many bytes as its shapes say, and has
the one input and the one output that the manifest promises.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from math import prod

from edge_agent.serving.static.protobuf import Message, garbled, read_message
from edge_agent.serving.static.schema import (
    ATTRIBUTE,
    GRAPH,
    MODEL,
    NODE,
    OPSET,
    PAIR,
    SHAPE,
    SIDE,
    TENSOR,
    TENSOR_TYPE,
    TYPE,
    VALUE,
)

__all__ = ["OPERATORS", "Expected", "check_graph"]

_WORDS = """
    Abs Add And AveragePool BatchNormalization BitShift BitwiseAnd BitwiseOr Cast Ceil Clip Concat Constant
    ConstantOfShape Conv ConvInteger ConvTranspose DequantizeLinear Div DynamicQuantizeLinear Einsum Elu Equal Erf Exp
    Expand Flatten Floor Gather Gemm GlobalAveragePool GlobalMaxPool Greater GroupNormalization HardSigmoid HardSwish
    Identity InstanceNormalization LayerNormalization LeakyRelu Less LogSoftmax MatMul MatMulInteger Max MaxPool Min Mod
    Mul Neg Not Or Pad Pow PRelu QLinearConv QLinearMatMul QuantizeLinear Range ReduceMax ReduceMean ReduceSum Relu
    Reshape Resize Round Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Unsqueeze Where"""
OPERATORS = frozenset(_WORDS.split())
"""Those of the standard domain that a net of layers needs; none opens a file, loops or holds another graph."""
_MOST_NODES = 20_000
_MOST_TENSORS = 20_000
_MOST_SIDES = 16
_MOST_VALUES = 1 << 28
_MOST_IN_GRAPH = 60_000
_MOST_METADATA_BYTES, _MOST_METADATA_IN_ALL = 64 * 1024, 1 << 20
_OTHER_FORMAT = b"ORTM"  # at byte 4: by this the runtime knows its own format, in which nothing here was looked at
_IR = (7, 13)
_OPSET = (13, 26)
_ITEM_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64}
_NEWER = {21: (10, 21), 22: (10, 21), 25: (13, 25), 26: (13, 25)}
"""Elements of 4 and 2 bits: from which IR version and opset on there are such. Their values are packed, always raw."""
_ITEM_BITS |= {21: 4, 22: 4, 25: 2, 26: 2}
_FLOAT = 1
_TYPED = {4: {1}, 5: {2, 3, 4, 5, 6, 9, 10}, 7: {7}, 10: {11}, 11: {12, 13}}  # field of TensorProto: its types
_HIGH = bytes(range(0x80, 0x100))
_AT_A_TIME = 1 << 16


@dataclass(frozen=True, slots=True)
class Expected:
    """What the manifest says of a file: the shape of one example, the outputs, and the operators that it may use."""

    input: tuple[int, ...]
    outputs: int
    operators: tuple[str, ...]


def check_graph(data: bytes | memoryview, expected: Expected) -> dict[str, str]:
    """Returns the metadata of an ONNX file; raises WireError (E-MODEL-GRAPH) with the place of the first fault."""
    if bytes(data[4:8]) == _OTHER_FORMAT:
        raise garbled("model", "it begins as a file of the runtime's own format does")
    model = read_message(memoryview(data), "model", MODEL)
    kinds = _kinds(*_check_versions(model))
    body = model.data(7)
    if body is None:
        raise garbled("model", "there is no graph")
    graph = model.read(body, "graph", GRAPH, _MOST_IN_GRAPH)
    stored = _check_tensors(graph, kinds)
    inputs = _check_ends(graph, 11, "input", expected.input)
    if stored & inputs:
        raise garbled("graph", f"{sorted(stored & inputs)[0]!r} is both an input and an initialiser")
    made = _check_nodes(graph, stored | inputs, expected.operators, kinds)
    outputs = _check_ends(graph, 12, "output", (expected.outputs,))
    if not outputs <= made:
        raise garbled("graph", f"no node makes the output {sorted(outputs)[0]!r}")
    return _metadata(model)


def _check_versions(model: Message) -> tuple[int, int]:
    """Returns IR version and opset."""
    ir = model.number(1)
    if not _IR[0] <= ir <= _IR[1]:
        raise garbled("model", f"IR version {ir}, {_IR[0]} to {_IR[1]} are read")
    sets = [model.read(view, "opset_import", OPSET) for view in model.all(8)]
    if len(sets) != 1 or sets[0].text(1) not in ("", "ai.onnx"):
        raise garbled("model", f"operators of {len(sets)} domains; one, the standard domain, is allowed")
    opset = sets[0].number(2)
    if not _OPSET[0] <= opset <= _OPSET[1]:
        raise garbled("model", f"opset {opset}, {_OPSET[0]} to {_OPSET[1]} are read")
    return ir, opset


def _kinds(ir: int, opset: int) -> frozenset[int]:
    """Returns the types of values that there are in these versions."""
    later = {kind for kind, (least_ir, least_opset) in _NEWER.items() if ir < least_ir or opset < least_opset}
    return frozenset(_ITEM_BITS.keys() - later)


def _check_tensors(graph: Message, kinds: frozenset[int]) -> set[str]:
    names: set[str] = set()
    values = 0
    found = graph.all(5)
    if len(found) > _MOST_TENSORS:
        raise garbled("graph", f"{len(found)} initialisers, at most {_MOST_TENSORS} are read")
    for at, view in enumerate(found):
        place = f"initialiser {at}"
        tensor = graph.read(view, place, TENSOR)
        name = tensor.text(8)
        if not name or name in names:
            raise garbled(place, f"its name {name!r} is empty or taken")
        names.add(name)
        values += _check_tensor(tensor, kinds)
        if values > _MOST_VALUES:
            raise garbled(place, f"more than {_MOST_VALUES} values in all")
    return names


def _check_tensor(tensor: Message, kinds: frozenset[int]) -> int:
    """Returns how many values a tensor has."""
    place = tensor.place
    if 13 in tensor or tensor.number(14):
        raise garbled(place, "its values lie in another file")
    kind = tensor.number(2)
    if kind not in kinds:
        raise garbled(place, f"values of type {kind}; its opset and IR version have none")
    sides = list(islice(tensor.numbers(1), _MOST_SIDES + 1))
    if len(sides) > _MOST_SIDES or any(not 0 <= side <= _MOST_VALUES for side in sides):
        raise garbled(place, f"shape {sides}")
    count = prod(sides)
    if count > _MOST_VALUES:
        raise garbled(place, f"{count} values")
    _check_amount(tensor, kind, count)
    return count


def _check_amount(tensor: Message, kind: int, count: int) -> None:
    """Raises unless there are exactly as many values as the shape says, in one of the two places for them."""
    raw = tensor.data(9)
    typed = [field for field in _TYPED if field in tensor]
    if raw is not None:
        wanted = -(-count * _ITEM_BITS[kind] // 8)
        if typed or len(raw) != wanted:
            raise garbled(tensor.place, f"{len(raw)} bytes of values, its shape needs {wanted}")
        return
    if any(kind not in _TYPED[field] for field in typed) or len(typed) > 1:
        raise garbled(tensor.place, f"values of type {kind} in the fields {typed}")
    found = sum(_count_typed(tensor, field) for field in typed)
    if found != count:
        raise garbled(tensor.place, f"{found} values, its shape needs {count}")


def _count_typed(tensor: Message, field: int) -> int:
    """Returns how many values a typed field holds: 4 or 8 bytes each, or varints, which end in a low byte."""
    entries = tensor.fields[field]
    packed = [one for one in entries if not isinstance(one, int)]
    width = {4: 4, 10: 8}.get(field)
    if len(packed) > 1 and any(len(view) != width for view in packed):  # every writer packs all values into one
        raise garbled(tensor.place, f"field {field} is there {len(packed)} times")
    if width:
        return sum(len(view) for view in packed) // width
    return len(entries) - len(packed) + sum(_low_bytes(view) for view in packed)


def _low_bytes(view: memoryview) -> int:
    """Returns how many bytes are below 0x80; no copy of all of them is made."""
    parts = (bytes(view[at : at + _AT_A_TIME]) for at in range(0, len(view), _AT_A_TIME))
    return sum(len(part.translate(None, _HIGH)) for part in parts)


def _check_nodes(graph: Message, known: set[str], named: Iterable[str], kinds: frozenset[int]) -> set[str]:
    """Returns what the nodes make; each may use only what is there before it, so there is no cycle."""
    allowed, made = OPERATORS & set(named), set[str]()
    found = graph.all(1)
    if not 0 < len(found) <= _MOST_NODES:
        raise garbled("graph", f"{len(found)} nodes, 1 to {_MOST_NODES} are read")
    for at, view in enumerate(found):
        node = graph.read(view, f"node {at}", NODE)
        operator = node.text(4)
        if node.text(7) not in ("", "ai.onnx") or operator not in OPERATORS:
            raise garbled(node.place, f"operator {node.text(7)}:{operator} is not on this device's list")
        if operator not in allowed:
            raise garbled(node.place, f"operator {operator} is not in the manifest's list")
        if missing := set(node.texts(1)) - known - made - {""}:
            raise garbled(node.place, f"input {sorted(missing)[0]!r} is not there yet")
        made |= _new_names(node, known, made)
        _check_attributes(node, kinds)
    return made


def _new_names(node: Message, known: set[str], made: set[str]) -> set[str]:
    outputs = [name for name in node.texts(2) if name]
    if not outputs or len(set(outputs)) < len(outputs):
        raise garbled(node.place, "it has no output, or the same one twice")
    for name in outputs:
        if name in known or name in made:
            raise garbled(node.place, f"output {name!r} is there already")
    return set(outputs)


def _check_attributes(node: Message, kinds: frozenset[int]) -> None:
    for view in node.all(5):
        place = f"{node.place}, an attribute"
        attribute = node.read(view, place, ATTRIBUTE)
        if (held := attribute.data(5)) is not None:
            _check_tensor(node.read(held, f"{place}'s tensor", TENSOR), kinds)


def _check_ends(graph: Message, field: int, what: str, sides: tuple[int, ...]) -> set[str]:
    """Returns the name of the one input or output; its shape is a free first side, or 1, and then `sides`."""
    found = graph.all(field)
    if len(found) != 1:
        raise garbled("graph", f"{len(found)} {what}s, one is expected")
    value = graph.read(found[0], what, VALUE)
    shape = _shape(value, what)
    if len(shape) != len(sides) + 1 or shape[0] not in (None, 1) or tuple(shape[1:]) != sides:
        raise garbled(what, f"shape {shape}, the manifest says {[None, *sides]}")
    name = value.text(1)
    if not name:
        raise garbled(what, "it has no name")
    return {name}


def _shape(value: Message, what: str) -> list[int | None]:
    held = value.data(2)
    kind = value.read(held, f"{what} type", TYPE) if held is not None else None
    body = kind.data(1) if kind else None
    if body is None:
        raise garbled(what, "it is not a tensor")
    tensor = value.read(body, f"{what} tensor", TENSOR_TYPE)
    if tensor.number(1) != _FLOAT:
        raise garbled(what, f"values of type {tensor.number(1)}, expected {_FLOAT} (float32)")
    view = tensor.data(2)
    if view is None:
        raise garbled(what, "it has no shape")
    shape = value.read(view, f"{what} shape", SHAPE, _MOST_SIDES)
    sides = [value.read(side, f"{what} side", SIDE) for side in shape.all(1)]
    if any(1 in side and 2 in side for side in sides):
        raise garbled(what, "a side is both a number and a name")
    return [side.number(1) if 1 in side else None for side in sides]


def _metadata(model: Message) -> dict[str, str]:
    found: dict[str, str] = {}
    left = _MOST_METADATA_IN_ALL
    for view in model.all(14):
        pair = model.read(view, "metadata", PAIR)
        name = pair.text(1)
        if name in found:
            raise garbled("metadata", f"{name!r} is there twice")
        found[name] = pair.text(2, _MOST_METADATA_BYTES)
        left -= len(view)
        if left < 0:
            raise garbled("metadata", f"more than {_MOST_METADATA_IN_ALL} bytes")
    return found
