"""Against NumPy's own sums: mean = sum_k w_k x_k / sum_k w_k, in float64, rounded once."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.learning.mean import Mean
from wire.bits import Bits
from wire.errors import StateError


def updates(count, size=50):
    bits = Bits.of("mean", count)
    return [
        {"w": bits.uniform(size) - np.float32(0.5), "b": bits.uniform(4).reshape(2, 2) * np.float32(1e-4)}
        for _ in range(count)
    ]


def mean_of(tensors, weights):
    mean = Mean()
    for one, weight in zip(tensors, weights, strict=True):
        mean.fold(one, weight)
    return mean.result()


@pytest.mark.parametrize("weights", [[1.0] * 7, [1, 5, 2, 9, 4, 4, 3], [0.1, 1e6, 3, 3, 3, 3, 1 / 3]])
def test_equals_the_weighted_mean(weights):
    tensors = updates(7)
    found = mean_of(tensors, weights)
    for name in ("w", "b"):
        stack = np.stack([one[name].astype(np.float64) for one in tensors])
        wanted = np.average(stack, axis=0, weights=weights).astype(np.float32)
        np.testing.assert_allclose(found[name], wanted, rtol=2e-7)
        assert found[name].dtype == np.float32
        assert found[name].shape == tensors[0][name].shape


def test_is_exact_where_float32_would_not_be():
    """2^24 + 1 is no float32: each product and the sum are made in float64."""
    tensors = [{"w": np.array([16777216.0], np.float32)}, {"w": np.array([1.0], np.float32)}]
    assert mean_of(tensors, [1, 1])["w"][0] == np.float32(16777217 / 2)
    third = [{"w": np.array([np.float32(1 / 3)], np.float32)}]
    mean = Mean()
    mean.fold(third[0], 3.0)
    assert mean.sums["w"][0] == 3.0 * float(np.float32(1 / 3))


def test_all_equal_is_that_one():
    (one,) = updates(1)
    found = mean_of([one] * 9, [3, 1, 4, 1, 5, 9, 2, 6, 5])
    for name, value in one.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_weight_twice_as_large_is_the_same_update_twice():
    one, two = updates(2)
    for name, value in mean_of([one, two], [2, 1]).items():
        np.testing.assert_allclose(value, mean_of([one, one, two], [1, 1, 1])[name], rtol=1e-7)


def test_the_same_order_gives_the_same_bytes_and_what_is_folded_in_stays_as_it_was():
    tensors = updates(6)
    before = [one["w"].tobytes() for one in tensors]
    assert mean_of(tensors, range(1, 7))["w"].tobytes() == mean_of(tensors, range(1, 7))["w"].tobytes()
    assert [one["w"].tobytes() for one in tensors] == before


def test_memory_does_not_grow_with_the_number_of_updates():
    mean = Mean()
    for one in updates(5):
        mean.fold(one, 1.0)
        assert sum(total.nbytes for total in mean.sums.values()) == 8 * 54
    assert mean.weight == 5.0


def test_no_updates_have_no_mean():
    with pytest.raises(StateError, match="the mean of no updates"):
        Mean().result()
