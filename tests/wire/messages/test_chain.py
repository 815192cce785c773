"""The chain of older deltas and the trunk: round trips, golden bytes, and every wrong length or digest refused."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.messages.golden import GOLDEN
from tests.wire.messages.samples import DELTA_REF, MADE
from wire.errors import WireError
from wire.frame import Kind, encode_frame
from wire.messages.blob import digest_bytes, read_trunk, snapshot_blob, trunk_blob
from wire.messages.chain import decode_chain, encode_chain
from wire.messages.plan import MAX_BYTES, BlobRef
from wire.spec import ModelSpec, TensorSpec

DIGEST = st.integers(0, (1 << 256) - 1).map(lambda number: f"{number:064x}")
SIZES = st.integers(1, MAX_BYTES)
LINKS = st.lists(st.tuples(DIGEST, SIZES), min_size=1, max_size=6)
ONE = encode_chain([DELTA_REF])
FROZEN = (TensorSpec("a", (2, 2)), TensorSpec("b", (3,)))
HALF = ModelSpec("tiny", (3,), 4, 5, (TensorSpec("w", (3, 4)),), FROZEN)
STILL = {"a": np.float32([[1, 2], [3, 4]]), "b": np.float32([0.5, 0, -0.5])}
TRUNK = (
    "42464c54010300000e00000028000000000000007b227472756e6b223a747275657d"
    "07000000000000001c0000000000803f0000004000004040000080400000003f00000000000000bf"
)


def linked(start, links, models):
    """Returns references of which each starts where the one before it ends."""
    ends = [start, *models]
    return [
        BlobRef(digest, size, source, target)
        for (digest, size), (source, target) in zip(links, pairwise(ends), strict=True)
    ]


@given(st.data())
def test_comes_back_as_it_was(data):
    links = data.draw(LINKS)
    refs = linked(data.draw(DIGEST), links, data.draw(st.lists(DIGEST, min_size=len(links), max_size=len(links))))
    coded = encode_chain(refs)
    assert len(coded) == 32 + 72 * len(refs)
    assert decode_chain(coded) == tuple(refs)


def test_golden_bytes_of_a_chain():
    assert MADE["chain"]().hex() == GOLDEN["chain"]
    fields = bytes.fromhex(DELTA_REF.source), bytes.fromhex(DELTA_REF.digest), bytes.fromhex(DELTA_REF.target)
    assert MADE["chain"]() == fields[0] + fields[1] + struct.pack("<Q", DELTA_REF.size) + fields[2]


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 72, 103, 105, 32 + 2 * 72 - 1, 32 + 2 * 72 + 1])
def test_no_other_length_is_a_chain(length):
    data = (ONE * 2)[:length].ljust(length, b"\1")
    with pytest.raises(WireError, match=f"a chain of {length} bytes"):
        decode_chain(data)


@pytest.mark.parametrize("size", [0, MAX_BYTES + 1, (1 << 64) - 1])
def test_a_blob_without_a_size_that_could_be_is_refused(size):
    with pytest.raises(WireError, match=f"names a blob of {size} bytes"):
        decode_chain(ONE[:64] + struct.pack("<Q", size) + ONE[72:])


@given(st.binary(max_size=400))
def test_bytes_of_anybody_are_a_chain_or_refused(data):
    try:
        refs = decode_chain(data)
    except WireError:
        return
    assert encode_chain(refs) == data


def test_golden_bytes_of_a_trunk():
    body = bytes.fromhex(TRUNK)
    assert trunk_blob(STILL, HALF)[: len(body)] == body
    assert len(trunk_blob(STILL, HALF)) == len(body) + 4  # the checksum


def test_a_trunk_comes_back_as_it_was():
    data = trunk_blob(STILL, HALF)
    found = read_trunk(data, digest_bytes(data), HALF)
    assert list(found) == ["a", "b"]
    assert {name: value.tobytes() for name, value in found.items()} == {n: v.tobytes() for n, v in STILL.items()}


def test_a_trunk_of_other_bytes_or_for_another_net_is_refused():
    data = trunk_blob(STILL, HALF)
    torn = data[:60] + b"\0" + data[61:]
    for wrong in (torn, data[:-1], b""):
        with pytest.raises(WireError) as caught:
            read_trunk(wrong, digest_bytes(data), HALF)
        assert caught.value.code == "E-BLOB"
    other = ModelSpec("tiny", (3,), 4, 5, HALF.trainable, (TensorSpec("a", (2, 2)),))
    with pytest.raises(WireError):
        read_trunk(data, digest_bytes(data), other)
    with pytest.raises(WireError) as caught:
        trunk_blob({**STILL, "a": np.full((2, 2), np.nan, np.float32)}, HALF)
    assert caught.value.code == "E-NONFINITE"


def test_a_trunk_with_values_that_are_not_finite_is_refused():
    payload = struct.pack("<III", 7, 0, 28) + np.float32([1, 2, 3, 4, 5, 6, np.inf]).tobytes()
    data = encode_frame(Kind.BLOB, {"trunk": True}, payload)
    with pytest.raises(WireError) as caught:
        read_trunk(data, digest_bytes(data), HALF)
    assert caught.value.code == "E-NONFINITE"


def test_a_snapshot_is_no_trunk_of_another_net():
    _, data = snapshot_blob({"w": np.zeros((3, 4), np.float32)}, HALF)
    with pytest.raises(WireError) as caught:
        read_trunk(data, digest_bytes(data), HALF)
    assert caught.value.code == "E-SHAPE"
