"""Golden inputs and outputs: what comes back is what was put in, and a length that is not right is seen first."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.hostile.mutations import resealed
from tests.wire.messages.golden import GOLDEN
from tests.wire.messages.samples import GOLDEN_INPUTS, GOLDEN_OUTPUTS, MADE
from wire.errors import WireError
from wire.frame import Kind, encode_frame
from wire.messages.golden import decode_golden, encode_golden
from wire.messages.manifest import MOST_VARIANTS

SHAPES = st.lists(st.integers(1, 4), min_size=2, max_size=4)


@given(SHAPES, st.integers(1, 5), st.lists(st.text("abc", min_size=1, max_size=5), min_size=1, max_size=4, unique=True))
def test_round_trip(shape, outputs, names):
    inputs = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) / 7
    answers = {name: np.full((shape[0], outputs), at, np.float32) for at, name in enumerate(names)}
    heard, told = decode_golden(encode_golden(inputs, answers))
    assert np.array_equal(heard, inputs) and heard.shape == tuple(shape)
    assert list(told) == names
    assert all(np.array_equal(told[name], answers[name]) for name in names)


def test_golden_bytes():
    assert MADE["golden"]().hex() == GOLDEN["golden"]
    inputs, outputs = decode_golden(bytes.fromhex(GOLDEN["golden"]))
    assert np.array_equal(inputs, GOLDEN_INPUTS)
    assert {name: rows.tolist() for name, rows in outputs.items()} == {
        name: rows.tolist() for name, rows in GOLDEN_OUTPUTS.items()
    }


@pytest.mark.parametrize(
    "outputs", [{}, {"a": np.zeros((3, 2), np.float32)}, {"a": np.zeros((2, 2)), "b": np.zeros((2, 3))}]
)
def test_what_has_not_a_row_for_each_input_is_not_written(outputs):
    with pytest.raises(WireError, match="one row for each of 2 inputs"):
        encode_golden(GOLDEN_INPUTS, outputs)


def refused(data: bytes) -> WireError:
    with pytest.raises(WireError) as caught:
        decode_golden(data)
    return caught.value


WRONG = {
    "examples": [0, 1, 1025, 2.0, None],
    "input": [[], [0], [4], [1] * 9, [True], None, 3],
    "outputs": [0, 3, (1 << 24) + 1],
    "variants": [[], ["a", "a"], [1], ["A"], ["x" * 33], ["a", "b"], None, [f"v{n}" for n in range(MOST_VARIANTS + 1)]],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_wrong_headers(field, value):
    assert refused(resealed(MADE["golden"](), lambda header: header.update({field: value}))).code == "E-FRAME"


def test_shapes_beyond_belief_are_only_numbers():
    huge = {"examples": 1024, "input": [1 << 24] * 8, "outputs": 1 << 24, "variants": ["a"]}
    assert refused(resealed(MADE["golden"](), lambda header: header.update(huge))).code == "E-FRAME"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_are_finite(value):
    header = {"examples": 1, "input": [1], "outputs": 1, "variants": ["a"]}
    assert refused(encode_frame(Kind.GOLDEN, header, struct.pack("<ff", 1.0, value))).code == "E-NONFINITE"
