"""Files for the static check: right ones with something changed, and some written byte by byte."""

from __future__ import annotations

import pytest

from edge_agent.serving.static.graph import Expected, check_graph
from tests.edge_agent.serving.stage.files import INPUT, OPERATORS, OUTPUTS, model
from wire.errors import WireError

WANTED = Expected(INPUT, OUTPUTS, (*OPERATORS, "Loop", "Constant"))


def refused(data, wanted=WANTED) -> str:
    with pytest.raises(WireError) as caught:
        check_graph(data, wanted)
    assert caught.value.code == "E-MODEL-GRAPH"
    return caught.value.message


def edited(change) -> bytes:
    made = model()
    change(made)
    return made.SerializeToString()


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number, data) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def in_graph(*fields) -> bytes:
    """Returns a file with more bytes in its graph, written as they are."""
    made = model()
    graph = made.graph.SerializeToString() + b"".join(fields)
    made.ClearField("graph")
    return made.SerializeToString() + field(7, graph)


def tensor(*fields) -> bytes:
    return field(5, field(8, b"extra") + b"\x10\x01" + b"".join(fields))
