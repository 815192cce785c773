"""Packing: any width comes back, in exactly the bytes that the document says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.bits import Bits
from wire.errors import WireError
from wire.stages.pack import Pack, pack_symbols, packed_bytes, padding_is_zero, unpack_symbols, width_of
from wire.stages.stage import Local, Shape


def slow_pack(values: list[int], width: int) -> bytes:
    """Returns the packing bit by bit, as docs/wire.md words it."""
    planes = b""
    while width > 8:
        planes += bytes(value & 0xFF for value in values)
        values, width = [value >> 8 for value in values], width - 8
    stream = sum(value << at * width for at, value in enumerate(values))
    return planes + stream.to_bytes((len(values) * width + 7) // 8, "little")


@pytest.mark.parametrize("width", range(1, 33))
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8, 9, 31, 100])
def test_every_width_and_length(width, count):
    values = (Bits.of(width, count).words(count) & np.uint64((1 << width) - 1)).astype(np.uint32)
    values[:1] = (1 << width) - 1
    data = pack_symbols(values, width)
    assert data.tobytes() == slow_pack(values.tolist(), width)
    assert len(data) == packed_bytes(count, width)
    assert unpack_symbols(data, count, width).tolist() == values.tolist()
    assert padding_is_zero(data, count, width)


@pytest.mark.parametrize(
    ("symbols", "width"),
    [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (256, 8), (257, 9), (65536, 16), (65537, 17), (131071, 17), (2**32, 32)],
)
def test_the_fewest_bits(symbols, width):
    assert width_of(symbols) == width


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=20))
def test_float32_travels_as_it_is(values):
    x = np.array(values, np.float32)
    data, side = Pack().encode(x, Local(), Bits(0))
    assert data.tobytes() == x.astype("<f4").tobytes() and side == b""
    back = Pack().decode(data, memoryview(b""), Shape(len(x)))
    assert back.tobytes() == x.tobytes()
    assert Pack().shape(Shape(len(x))) == Shape(4 * len(x), 256)


def test_a_symbol_outside_the_alphabet_is_refused():
    data = pack_symbols(np.array([0, 2, 3], np.uint8), 2)
    with pytest.raises(WireError) as caught:
        Pack(3).decode(data, memoryview(b""), Shape(3, 3))
    assert caught.value.code == "E-LEVELS"
    assert Pack(4).decode(data, memoryview(b""), Shape(3, 4)).tolist() == [0, 2, 3]


@pytest.mark.parametrize(("symbols", "count"), [(3, 3), (15, 5), (31, 3), (257, 4), (511, 7)])
def test_every_bit_after_the_last_symbol_is_refused(symbols, count):
    data = pack_symbols(np.zeros(count, np.uint32), width_of(symbols))
    used = count * width_of(symbols) % 8
    assert Pack(symbols).decode(data, memoryview(b""), Shape(count, symbols)).tolist() == [0] * count
    for bit in range(used, 8):
        wrong = data.copy()
        wrong[-1] |= 1 << bit
        with pytest.raises(WireError, match="after the last symbol") as caught:
            Pack(symbols).decode(wrong, memoryview(b""), Shape(count, symbols))
        assert caught.value.code == "E-LEVELS"
    assert used


def test_side_bytes_are_refused():
    with pytest.raises(WireError) as caught:
        Pack().decode(np.zeros(4, np.uint8), memoryview(b"x"), Shape(1))
    assert caught.value.code == "E-SHAPE"
