"""Bit planes: what is packed comes back, in the documented places, and nothing else is taken."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.refused import ExportError
from export.store.planes import pack, unpack


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 8), st.integers(1, 67), st.randoms(use_true_random=False))
def test_round_trip_at_any_size(bits, count, random):
    codes = np.array([random.randrange(1 << bits) for _ in range(count)], np.uint8)
    planes = pack(codes, bits)
    assert planes.shape == (bits, (count + 7) // 8)
    assert planes.dtype == np.uint8
    assert np.array_equal(unpack(planes, count), codes)
    assert not unpack(planes, 8 * planes.shape[1])[count:].any()


def test_where_the_bits_are():
    codes = np.zeros(17, np.uint8)  # 3 bytes a plane: code k * 3 + m is bit k of byte m
    codes[3 * 5 + 1] = 0b100
    codes[3 * 0 + 2] = 0b001
    assert pack(codes, 3).tolist() == [[0, 1 << 5, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize("bits", [3, 5])
def test_fewer_planes_are_the_leading_bits(bits):
    codes = np.arange(0, 256, 5, dtype=np.uint8)
    assert np.array_equal(unpack(pack(codes, 8)[:bits], codes.size), codes >> (8 - bits))


@pytest.mark.parametrize(
    ("codes", "bits"),
    [
        (np.array([8], np.uint8), 3),
        (np.array([1], np.uint8), 0),
        (np.array([1], np.uint8), 9),
        (np.array([1], np.int32), 3),
        (np.zeros(0, np.uint8), 3),
    ],
)
def test_what_does_not_fit_is_refused(codes, bits):
    with pytest.raises(ExportError, match="code"):
        pack(codes, bits)
