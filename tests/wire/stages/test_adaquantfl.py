"""The quantiser of AdaQuantFL in the setting of its note: one l2 norm for an update of 4810 values.

Q_s(v) = ||v|| * sign(v) * {floor(s |v| / ||v|| + u)} / s,   bits = d * ceil(log2(s + 1)) + d + 32
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from models.archs import spec_of
from wire.bits import Bits
from wire.stages.tensors import Codec

SPEC = spec_of("mlp-64", (1, 8, 8), 10, 1)
DRAWS = 20
SIDE_BYTES = 4 + 4 + 2 + 4 + 4  # elements, side data, levels; then those of packing


def gaussian():
    """Returns as many normal values as the net has, tensor by tensor (Box and Muller)."""
    found = {}
    for tensor in SPEC.trainable:
        u, v = (Bits.of("normal", tensor.name, part).uniform(tensor.count).astype(float) for part in (0, 1))
        values = np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)
        found[tensor.name] = values.astype(np.float32).reshape(tensor.shape)
    return found


VALUES = gaussian()
FLAT = np.concatenate([VALUES[tensor.name].reshape(-1) for tensor in SPEC.trainable]).astype(float)
NORM = float(np.linalg.norm(FLAT))


def codec(levels):
    return Codec.of(SPEC.trainable, [{"stage": "levels", "levels": levels, "norm": "l2"}], "update")


def drawn(levels, draw, values=VALUES):
    made = codec(levels)
    found = made.decode(memoryview(made.encode(values, ("draw", draw))))
    return np.concatenate([found[tensor.name].reshape(-1) for tensor in SPEC.trainable]).astype(float)


def error(levels):
    """Returns the mean of ||Q - v||^2 / ||v||^2."""
    return np.mean([((drawn(levels, draw) - FLAT) ** 2).sum() for draw in range(DRAWS)]) / NORM**2


def test_the_update_has_as_many_values_as_in_the_note():
    assert SPEC.count == FLAT.size == 4810


@pytest.mark.parametrize(("levels", "measured"), [(1, 54.2), (3, 17.4), (15, 2.69), (255, 0.0123)])
def test_the_error_is_what_was_measured_and_within_the_bound(levels, measured):
    found = error(levels)
    assert found == pytest.approx(measured, rel=0.05)
    assert found <= min(SPEC.count / (4 * levels**2), math.sqrt(SPEC.count) / levels)


def test_with_many_levels_the_error_falls_as_their_square():
    assert error(1024) / error(4096) == pytest.approx(16, rel=0.05)


@pytest.mark.parametrize("levels", [1, 3, 15, 255])
def test_the_mean_of_many_draws_comes_to_the_values(levels):
    """Of R draws the mean misses by about sqrt(variance / R), over all values together."""
    mean = np.mean([drawn(levels, draw) for draw in range(DRAWS)], axis=0)
    wanted = math.sqrt(error(levels) / DRAWS) * NORM
    assert np.linalg.norm(mean - FLAT) == pytest.approx(wanted, rel=0.05)
    along = float((mean - FLAT) @ FLAT) / NORM  # a shrinking quantiser would show here
    assert abs(along) < 5 * wanted / math.sqrt(SPEC.count)


@pytest.mark.parametrize("levels", [1, 2, 7, 100])
def test_values_are_on_the_grid_of_the_norm(levels):
    found = drawn(levels, 0) / NORM * levels
    np.testing.assert_allclose(found, np.round(found), atol=2e-6 * levels)
    assert set(np.unique(np.round(found))) <= set(range(-levels, levels + 1))
    assert levels > 1 or len(np.unique(np.round(found))) == 3


def test_nothing_comes_to_nothing():
    zero = {name: np.zeros_like(values) for name, values in VALUES.items()}
    assert not drawn(2, 0, zero).any()


@pytest.mark.parametrize("levels", [1, 2, 3, 4, 7, 15, 16, 127, 128, 255, 1000, 65535])
def test_the_bits_are_those_of_the_formula(levels):
    """Beside them stand whole bytes at the end of planes and the side data that docs/wire.md lists."""
    bits = SPEC.count * math.ceil(math.log2(levels + 1)) + SPEC.count + 32
    size = len(codec(levels).encode(VALUES, ("size",)))
    assert 0 <= size - (bits / 8 + SIDE_BYTES) < 2
    assert size <= codec(levels).most_bytes


def test_a_norm_for_every_tensor_costs_a_header_each():
    one = codec(7)
    many = Codec.of(SPEC.trainable, [{"stage": "levels", "levels": 7, "norm": "l2"}], "tensor")
    extra = len(many.encode(VALUES, ("size",))) - len(one.encode(VALUES, ("size",)))
    assert extra == pytest.approx((len(SPEC.trainable) - 1) * (SIDE_BYTES + 4), abs=len(SPEC.trainable))
