"""Top-k: the largest survive, ties go to the lower position, the rest becomes zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wire.bits import Bits
from wire.errors import ConfigError, WireError
from wire.stages.stage import Local, Shape
from wire.stages.topk import TopK, largest

VECTOR = arrays(np.float32, st.integers(1, 40), elements=st.integers(-4, 4).map(float))


@given(VECTOR, st.floats(0.001, 1))
def test_keeps_the_first_of_the_largest(x, share):
    k = max(1, math.ceil(share * len(x)))
    ranked = sorted(range(len(x)), key=lambda at: (-abs(x[at]), at))
    values, side = TopK(share).encode(x, Local(), Bits(0))
    assert len(values) == k == TopK(share).shape(Shape(len(x))).size
    kept = np.zeros(len(x), np.float32)
    kept[ranked[:k]] = x[ranked[:k]]
    assert TopK(share).decode(values, memoryview(side), Shape(len(x))).tolist() == kept.tolist()


@given(VECTOR, st.integers(1, 50))
def test_largest_is_a_stable_choice(x, k):
    magnitudes = np.abs(x)
    stable = sorted(np.argsort(-magnitudes, kind="stable")[:k].tolist())
    assert largest(magnitudes, k).tolist() == stable


def test_ties_go_to_the_lower_position():
    assert largest(np.float32([1, 2, 2, 2, 1]), 2).tolist() == [1, 2]
    assert largest(np.zeros(5, np.float32), 3).tolist() == [0, 1, 2]


def test_ranked_by_the_weights():
    x, weights = np.float32([9, 1, 5, 2]), np.float32([0, -7, 1, 6])
    values, side = TopK(0.5, "weights").encode(x, Local(weights), Bits(0))
    assert values.tolist() == [1, 2]
    assert TopK(0.5).decode(values, memoryview(side), Shape(4)).tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize("weights", [None, np.float32([1, 2, 3])])
def test_weights_that_do_not_fit(weights):
    with pytest.raises(ConfigError):
        TopK(0.5, "weights").encode(np.float32([1, 2]), Local(weights), Bits(0))


def test_weights_that_are_not_numbers():
    with pytest.raises(WireError) as caught:
        TopK(1 / 3, "weights").encode(np.float32([1, 2, 3]), Local(np.float32([1, np.nan, 3])), Bits(0))
    assert caught.value.code == "E-NONFINITE"


@pytest.mark.parametrize("share", [0, -0.1, 1.01, float("nan"), float("inf"), True, "0.5", None, [0.5], 10**400])
def test_shares_that_are_not_there(share):
    with pytest.raises(ConfigError):
        TopK(share)


@pytest.mark.parametrize("by", ["", "delta", None, [], {}])
def test_rankings_that_are_not_there(by):
    with pytest.raises(ConfigError):
        TopK(0.5, by)


def test_at_least_one_is_kept():
    assert TopK(5e-324).shape(Shape(10)) == Shape(1)
    assert TopK(0.5).shape(Shape(0)) == Shape(0)
