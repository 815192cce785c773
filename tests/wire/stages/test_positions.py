"""Positions: three codings, each reached, the shortest chosen, each checked on the way in."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import WireError
from wire.stages.pack import packed_bytes, width_of
from wire.stages.positions import decode_positions, encode_positions

SETS = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=40)))


def coded(positions: list[int], n: int) -> bytes:
    return encode_positions(np.array(sorted(positions), np.int64), n)


def code_of(data: bytes, k: int, n: int) -> str:
    with pytest.raises(WireError) as caught:
        decode_positions(memoryview(data), k, n)
    return caught.value.code


@given(SETS)
def test_round_trip(case):
    n, positions = case
    data = coded(list(positions), n)
    assert decode_positions(memoryview(data), len(positions), n).tolist() == sorted(positions)


@given(SETS)
def test_never_longer_than_mask_indices_or_gaps(case):
    n, positions = case
    ordered, k = sorted(positions), len(positions)
    gaps = [after - before - 1 for before, after in zip([-1, *ordered], ordered, strict=False)]
    mean = sum(gaps) / k if k else 0
    guess = max(0, int(np.log2(mean * 0.69 + 1)))
    rice = [
        1 + (sum(gap >> r for gap in gaps) + k + 7) // 8 + (packed_bytes(k, r) if r else 0)
        for r in range(max(0, guess - 1), guess + 2)
    ]
    sizes = [(n + 7) // 8, packed_bytes(k, width_of(n)), min(rice)]
    data = coded(ordered, n)
    assert len(data) == 1 + min(sizes)
    assert data[0] == sizes.index(min(sizes))


@pytest.mark.parametrize(
    ("positions", "n", "data"),
    [
        ([0, 1, 3, 8], 12, "000b01"),
        ([199], 200, "01c7"),
        ([1000, 3000], 4096, "01e8b8b3"),
        ([3, 15, 16, 40, 51, 60, 72, 88, 99, 110], 300, "020219248924cff20a"),
    ],
)
def test_golden_codings(positions, n, data):
    assert coded(positions, n).hex() == data


def test_each_coding_is_reached():
    assert coded(list(range(0, 100, 2)), 100)[0] == 0
    assert coded([65000], 65536)[0] == 1
    assert coded(list(range(5, 4000, 61)), 4000)[0] == 2


@pytest.mark.parametrize(
    ("data", "k", "n"),
    [
        (b"", 1, 8),
        (b"\x03\x01", 1, 8),  # unknown coding
        (b"\x00\x01\x00", 1, 8),  # mask too long
        (b"\x00", 1, 8),  # mask too short
        (b"\x00\x03", 1, 8),  # too many
        (b"\x00\x01", 2, 8),  # too few
        (b"\x00\x80", 1, 7),  # past the end
        (b"\x01\x33", 2, 16),  # 3, 3: twice
        (b"\x01\x23", 2, 16),  # 3, 2: decreasing
        (b"\x01\x0f", 1, 9),  # 15 of 9
        (b"\x01\x21\x43", 2, 16),  # too long
        (b"\x01\x17", 1, 16),  # 7, and a bit after it
        (b"\x02\x02\x01\x04", 1, 64),  # a remainder of 0 in two bits, and a bit after it
        (b"\x02", 1, 64),  # no remainder width
        (b"\x02\x20\x01", 1, 64),  # 32 bits
        (b"\x02\x00\x01", 2, 64),  # one quotient of two
        (b"\x02\x00\x03", 1, 64),  # two quotients of one
        (b"\x02\x00\x01\x00", 1, 64),  # a byte too many
        (b"\x02\x08\x01", 1, 64),  # the remainder is missing
        (b"\x02\x00\x00\x80", 1, 15),  # gap 15 of 15
        (b"\x02\x1f\x80\xff\xff\xff\xff", 1, 64),  # far past the end
    ],
)
def test_wrong_positions(data, k, n):
    assert code_of(data, k, n) == "E-INDEX"


@given(st.integers(1, 40), st.binary(max_size=12), st.integers(0, 8))
def test_whatever_comes_in_is_sorted_and_complete_or_refused(n, data, k):
    try:
        positions = decode_positions(memoryview(data), k, n).tolist()
    except WireError as error:
        assert error.code == "E-INDEX"
    else:
        assert len(positions) == k and positions == sorted(set(positions))
        assert not positions or (positions[0] >= 0 and positions[-1] < n)


def test_a_long_coding_is_refused_before_it_is_unfolded():
    data = b"\x02\x00" + b"\xff" * (1 << 20)
    tracemalloc.start()
    try:
        assert code_of(data, 10, 100) == "E-INDEX"
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
