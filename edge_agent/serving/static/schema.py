"""The fields of ONNX's messages that a net of layers needs, and how each stands on the wire.

A reader passes a field over whose form is another one. Such a file is refused here: nobody sees less than we do.
"""

from __future__ import annotations

from edge_agent.serving.static.protobuf import Form, Schema

__all__ = [
    "ATTRIBUTE",
    "GRAPH",
    "MODEL",
    "NODE",
    "OPSET",
    "PAIR",
    "SHAPE",
    "SIDE",
    "TENSOR",
    "TENSOR_TYPE",
    "TYPE",
    "VALUE",
]

_NUMBER, _BYTES = (Form.NUMBER,), (Form.BYTES,)
_NUMBERS, _FLOATS, _DOUBLES = (Form.NUMBER, Form.BYTES), (Form.FOUR, Form.BYTES), (Form.EIGHT, Form.BYTES)


def _messages(*fields: int) -> Schema:
    return dict.fromkeys(fields, _BYTES)


MODEL = {**_messages(2, 3, 4, 6, 7, 8, 14), 1: _NUMBER, 5: _NUMBER}  # without 20 training_info, 25 functions
OPSET = {1: _BYTES, 2: _NUMBER}
GRAPH = _messages(1, 2, 5, 10, 11, 12, 13, 14, 16)  # without 15 sparse_initializer
NODE = _messages(1, 2, 3, 4, 5, 6, 7, 9)
ATTRIBUTE = {**_messages(1, 4, 5, 9, 13), 2: (Form.FOUR,), 3: _NUMBER, 7: _FLOATS, 8: _NUMBERS, 20: _NUMBER}
"""Without graphs, sparse tensors, lists of tensors, types."""
TENSOR = {
    **_messages(8, 9, 12, 13, 16),  # 13 and 14 are looked at, to be named
    **dict.fromkeys((1, 5, 7, 11), _NUMBERS),
    **dict.fromkeys((2, 14), _NUMBER),
    4: _FLOATS,
    10: _DOUBLES,
}
VALUE = _messages(1, 2, 3, 4)
TYPE = _messages(1, 6)
TENSOR_TYPE = {1: _NUMBER, 2: _BYTES}
SHAPE = _messages(1)
SIDE = {1: _NUMBER, 2: _BYTES, 3: _BYTES}
PAIR = _messages(1, 2)
