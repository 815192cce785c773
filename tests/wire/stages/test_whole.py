"""Tensors that match a pattern in `whole` travel without top-k; everything else about them stays as planned."""

from __future__ import annotations

import numpy as np
import pytest

from tests.wire.messages.samples import HELD, SPEC, STEP
from wire.bits import Bits
from wire.errors import ConfigError
from wire.stages.chain import Chain
from wire.stages.stage import Local
from wire.stages.tensors import Codec

TOPK = {"stage": "topk", "share": 0.25}
SEVEN = {"stage": "levels", "levels": 7}
ORDER = SPEC.trainable


def decoded(codec, params, weights=None):
    return codec.decode(memoryview(codec.encode(params, (1, "x"), weights)))


def test_a_tensor_that_matches_keeps_all_its_values():
    found = decoded(Codec.of(ORDER, [TOPK], "tensor", ["b"]), STEP)
    assert found["b"].tobytes() == STEP["b"].tobytes()
    assert np.flatnonzero(found["w"]).tolist() == [0, 1, 11]


def test_the_other_stages_and_the_streams_stay():
    w = Chain.of([TOPK, SEVEN]).encode(STEP["w"].reshape(-1), Local(), Bits.of(1, "x", 0))
    b = Chain.of([SEVEN]).encode(STEP["b"], Local(), Bits.of(1, "x", 1))
    assert Codec.of(ORDER, [TOPK, SEVEN], "tensor", ("b",)).encode(STEP, (1, "x")) == w + b


@pytest.mark.parametrize(
    ("patterns", "thinned"),
    [
        ((), {"w", "b"}),
        (("w", "b"), set()),
        (("*",), set()),
        (("?",), set()),
        (("[a-c]",), {"w"}),
        (("B", "bias"), {"w", "b"}),
    ],
)
def test_patterns(patterns, thinned):
    ones = {"w": np.ones((3, 4), np.float32), "b": np.ones(4, np.float32)}
    found = decoded(Codec.of(ORDER, [TOPK], "tensor", patterns), ones)
    assert {name for name in found if not found[name].all()} == thinned


def test_without_patterns_the_bytes_are_as_before_and_all_whole_are_those_without_top_k():
    plain = Codec.of(ORDER, [TOPK, SEVEN], "tensor").encode(STEP, (1, "x"))
    assert Codec.of(ORDER, [TOPK, SEVEN], "tensor", ["nothing"]).encode(STEP, (1, "x")) == plain
    without = Codec.of(ORDER, [SEVEN], "tensor").encode(STEP, (1, "x"))
    assert Codec.of(ORDER, [TOPK, SEVEN], "tensor", ["*"]).encode(STEP, (1, "x")) == without != plain


def test_most_bytes_counts_each_tensor_by_its_own_chain():
    codec = Codec.of(ORDER, [TOPK], "tensor", ["b"])
    assert codec.most_bytes == Chain.of([TOPK]).most_bytes(12) + Chain.of([]).most_bytes(4)
    assert len(codec.encode(STEP)) <= codec.most_bytes
    assert Codec.of(ORDER, [TOPK], "tensor").most_bytes < codec.most_bytes + 16


def test_a_whole_tensor_needs_no_weights_to_be_ranked_by():
    by_weights = {**TOPK, "by": "weights"}
    found = decoded(Codec.of(ORDER, [by_weights], "tensor", ["b"]), STEP, HELD)
    assert found["b"].tobytes() == STEP["b"].tobytes()
    assert np.flatnonzero(found["w"]).tolist() == [0, 1, 11]
    assert decoded(Codec.of(ORDER, [by_weights], "tensor", ["*"]), STEP)["w"].tobytes() == STEP["w"].tobytes()


def test_patterns_without_tensors_of_their_own_are_refused():
    with pytest.raises(ConfigError, match=r"whole = \['b'\] with scope = 'update'"):
        Codec.of(ORDER, [TOPK], "update", ["b"])
    assert Codec.of(ORDER, [TOPK], "update", []).whole == ()
