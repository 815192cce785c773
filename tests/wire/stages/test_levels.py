"""Stochastic levels: on the grid, unbiased, within the variance bound, of exactly the bytes promised."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wire.bits import Bits
from wire.errors import ConfigError, WireError
from wire.stages.chain import Chain
from wire.stages.levels import Levels
from wire.stages.stage import Local, Shape

COUNTS = (1, 2, 3, 7, 127, 128, 1023, 1024, 32767, 32768, 65535)
NORMS = ("max", "l2")
VECTOR = arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False))


def through(stage: Levels, x: np.ndarray, bits: Bits) -> np.ndarray:
    symbols, side = stage.encode(x, Local(), bits)
    return stage.decode(symbols, memoryview(side), Shape(len(x)))


def sample(count: int, name: str) -> np.ndarray:
    return (Bits.of("sample", name).uniform(count) * 2 - 1).astype(np.float32)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("levels", COUNTS)
@given(x=VECTOR, key=st.integers(0, 1 << 30))
@settings(max_examples=20)
def test_symbols_are_the_formula_and_values_the_grid(levels, norm, x, key):
    stage = Levels(levels, norm)
    symbols, side = stage.encode(x, Local(), Bits(key))
    scale = np.frombuffer(side[2:], "<f4")[0]
    q = symbols.astype(np.int64) - levels
    assert len(side) == 6 and int.from_bytes(side[:2], "little") == levels
    assert np.abs(q).max() <= levels
    decoded = stage.decode(symbols, memoryview(side), Shape(len(x)))
    assert decoded.dtype == np.float32
    assert decoded.tolist() == (q.astype(np.float32) * (scale / np.float32(levels))).tolist()
    step = float(scale) / levels
    assert np.abs(decoded.astype(float) - x).max() <= step * (1 + 1e-3) + float(scale) * 1e-6
    wanted = float(np.abs(x).max()) if norm == "max" else math.sqrt(float((x.astype(float) ** 2).sum()))
    assert scale >= wanted * (1 - 1e-12) and (scale <= wanted * (1 + 1e-6) or wanted == 0)


@pytest.mark.parametrize("levels", COUNTS)
def test_the_formula_on_a_plain_vector(levels):
    x, key = sample(501, "formula"), 11
    real = np.float32 if levels <= 1023 else np.float64
    scale = real(np.abs(x).max())
    floor = np.floor(x.astype(real) / scale * real(levels) + Bits(key).uniform(len(x)))
    symbols, _ = Levels(levels).encode(x, Local(), Bits(key))
    assert symbols.astype(int).tolist() == np.clip(floor + levels, 0, 2 * levels).astype(int).tolist()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("levels", COUNTS)
def test_unbiased_within_the_variance_bound(levels, norm):
    d, draws = 64, 400
    x = sample(d, "unbiased")
    stage = Levels(levels, norm)
    errors = np.array([through(stage, x, Bits.of("draw", n)).astype(float) - x for n in range(draws)])
    scale = float(np.abs(x).max()) if norm == "max" else float(np.linalg.norm(x.astype(float)))
    step = scale / levels
    rounding = 2.0**-22 * scale  # float32 arithmetic on top of the formula
    assert np.abs(errors.mean(0)).max() <= 5 * step / 2 / math.sqrt(draws) + rounding
    squares = (errors**2).sum(1)
    bound = d * step**2 / 4
    if norm == "l2":
        bound = min(d / (4 * levels**2), math.sqrt(d) / levels) * scale**2
    assert squares.mean() <= bound + 5 * squares.std() / math.sqrt(draws) + d * rounding**2


@pytest.mark.parametrize("scope_bits", [(1, 2), (2, 3), (3, 3), (7, 4), (127, 8), (128, 9), (32768, 17), (65535, 17)])
@pytest.mark.parametrize("d", [1, 2, 9, 1000])
def test_packed_sizes(scope_bits, d):
    levels, width = scope_bits
    assert width == math.ceil(math.log2(levels + 1)) + 1
    record = Chain.of([{"stage": "levels", "levels": levels}]).encode(sample(d, "size"), Local(), Bits(0))
    planes = max(0, (width - 1) // 8)
    body = planes * d + math.ceil((width - 8 * planes) * d / 8)
    assert len(record) == 4 + (4 + 6) + 4 + 4 + body
    assert d * width / 8 <= body < d * width / 8 + 1


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("levels", COUNTS)
def test_zero_stays_zero_with_scale_one(levels, norm):
    stage, zero = Levels(levels, norm), np.zeros(9, np.float32)
    symbols, side = stage.encode(zero, Local(), Bits(1))
    assert side[2:] == np.float32(1).tobytes()
    assert stage.decode(symbols, memoryview(side), Shape(9)).tolist() == [0.0] * 9


@pytest.mark.parametrize("levels", COUNTS)
def test_the_largest_values_are_kept(levels):
    x = np.float32([-3.7, 3.7])
    assert np.abs(through(Levels(levels), x, Bits(2)) - x).max() <= 3.7 * 2**-22 + 3.7 / levels * 1e-3


def test_rounding_never_leaves_the_alphabet():
    """In float32, 1023 + u rounds up to 1024 for about one u in 30,000."""
    symbols, _ = Levels(1023).encode(np.ones(400_000, np.float32), Local(), Bits(1))
    assert symbols.max() == 2046 == symbols.min()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("norm", NORMS)
def test_what_is_not_finite_is_not_encoded(bad, norm):
    with pytest.raises(WireError) as caught:
        Levels(7, norm).encode(np.float32([1, bad]), Local(), Bits(0))
    assert caught.value.code == "E-NONFINITE"


def test_a_norm_past_float32_is_not_encoded():
    most = np.finfo(np.float32).max
    with pytest.raises(WireError) as caught:
        Levels(7, "l2").encode(np.float32([most, most]), Local(), Bits(0))
    assert caught.value.code == "E-NONFINITE"
    assert Levels(7).encode(np.float32([most, -most]), Local(), Bits(0))[0].tolist() == [14, 0]


@pytest.mark.parametrize("levels", [0, -1, 65536, 7.0, 2.5, True, "7", None, [7], 10**30, float("nan")])
def test_levels_that_are_not_there(levels):
    with pytest.raises(ConfigError):
        Levels(levels)


@pytest.mark.parametrize("norm", ["", "l1", None, [], {}, 2])
def test_norms_that_are_not_there(norm):
    with pytest.raises(ConfigError):
        Levels(7, norm)
