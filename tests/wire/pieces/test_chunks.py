"""Pieces: any cutting and any order give the whole, and the ranges tell what is missing."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.messages.golden import GOLDEN
from tests.wire.messages.samples import MADE, SNAPSHOT, SNAPSHOT_REF
from wire.errors import WireError
from wire.pieces.chunks import HEADER_BYTES, Spans, cut_spans, decode_chunk, encode_chunk

DIGEST = "ab" * 32
RANGES = st.lists(
    st.tuples(st.integers(0, 60), st.integers(1, 20)).map(lambda r: (r[0], min(60, r[0]) + r[1])), max_size=12
)


@given(st.integers(0, 1 << 40), st.binary(min_size=1, max_size=50), st.integers(0, 1 << 20))
def test_round_trip(offset, data, more):
    total = offset + len(data) + more
    chunk = decode_chunk(encode_chunk(DIGEST, total, offset, data), total)
    assert (chunk.digest, chunk.total, chunk.offset, bytes(chunk.data)) == (DIGEST, total, offset, data)


def test_golden_bytes():
    assert MADE["piece"]().hex() == GOLDEN["piece"]
    chunk = decode_chunk(bytes.fromhex(GOLDEN["piece"]), 1 << 20)
    assert (chunk.digest, chunk.total, chunk.offset) == (SNAPSHOT_REF.digest, len(SNAPSHOT), 32)
    assert bytes(chunk.data) == SNAPSHOT[32:48] and HEADER_BYTES == 48


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"", "E-FRAME"),
        (b"x" * 48, "E-FRAME"),
        (struct.pack("<32sQQ", b"", 101, 0) + b"x", "E-SIZE"),
        (struct.pack("<32sQQ", b"", 1 << 63, 0) + b"x", "E-SIZE"),
        (struct.pack("<32sQQ", b"", 100, 100) + b"x", "E-SIZE"),
        (struct.pack("<32sQQ", b"", 100, (1 << 64) - 1) + b"x", "E-SIZE"),
        (struct.pack("<32sQQ", b"", 0, 0) + b"x", "E-SIZE"),
    ],
)
def test_wrong_pieces(payload, code):
    with pytest.raises(WireError) as caught:
        decode_chunk(payload, 100)
    assert caught.value.code == code


@given(RANGES, st.integers(1, 30))
def test_cutting_covers_the_same_bytes(ranges, most):
    pieces = list(cut_spans(ranges, most))
    assert [at for s, e in pieces for at in range(s, e)] == [at for s, e in ranges for at in range(s, e)]
    assert all(0 < e - s <= most for s, e in pieces)


@given(RANGES)
def test_spans_are_the_set_of_their_bytes(ranges):
    spans, there = Spans(80), set()
    for start, end in ranges:
        assert spans.covers(start, end) == set(range(start, end)).issubset(there)
        spans.add(start, end)
        there |= set(range(start, end))
        assert {at for s, e in spans.held for at in range(s, e)} == there
        assert all(a[1] < b[0] for a, b in zip(spans.held, spans.held[1:], strict=False))
    missing = spans.missing()
    assert {at for s, e in missing for at in range(s, e)} == set(range(80)) - there
    assert spans.complete == (not missing)
    assert spans.missing(1) == missing[:1]


@given(RANGES, RANGES)
def test_what_is_removed_is_not_there(ranges, removed):
    spans, there = Spans(80), set()
    for start, end in ranges:
        spans.add(start, end)
        there |= set(range(start, end))
    for start, end in removed:
        assert spans.touches(start, end) == bool(there & set(range(start, end)))
        spans.remove(start, end)
        there -= set(range(start, end))
        assert {at for s, e in spans.held for at in range(s, e)} == there
        assert all(s < e for s, e in spans.held)
        assert all(a[1] < b[0] for a, b in zip(spans.held, spans.held[1:], strict=False))


def test_nothing_is_complete_when_nothing_is_wanted():
    assert Spans(0).complete and Spans(0).missing() == ()


def test_missing_is_bounded():
    spans = Spans(10_000)
    for at in range(0, 10_000, 2):
        spans.add(at, at + 1)
    assert len(spans.missing()) == 1024 and spans.missing()[0] == (1, 2)
