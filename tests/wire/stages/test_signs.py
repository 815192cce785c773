"""Signs: one bit and one scale, the nearest such array, whose residual feedback keeps small."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.wire.messages.samples import SPEC, STEP
from wire.bits import Bits
from wire.errors import ConfigError, WireError
from wire.stages.chain import Chain
from wire.stages.signs import Signs
from wire.stages.stage import Local, Shape
from wire.stages.tensors import Codec

SIGNS = {"stage": "signs"}
TENTH = {"stage": "topk", "share": 0.1}
VECTOR = arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e3, 1e3, width=32, allow_subnormal=False))


def through(x, *stages):
    chain = Chain.of([*stages, SIGNS])
    values, rest = chain.decode(memoryview(chain.encode(x, Local(), Bits(0))), len(x))
    assert not len(rest)
    return values


@given(VECTOR)
def test_the_mean_magnitude_with_the_sign_of_each(x):
    scale = np.float32(np.mean([abs(float(value)) for value in x]))
    assert through(x).tolist() == [float(-scale if value < 0 else scale) for value in x]


@given(VECTOR)
def test_what_is_left_out_is_less_than_what_was_there(x):
    wide, sent = x.astype(float), through(x).astype(float)
    whole = float(wide @ wide)
    assert float((wide - sent) @ (wide - sent)) == pytest.approx(whole - float(sent @ sent), abs=1e-6 * whole)
    assert float(sent @ sent) >= whole / len(x) * (1 - 1e-6)


@given(VECTOR)
def test_of_what_was_decoded_nothing_is_lost(x):
    chain, once = Chain.of([SIGNS]), through(x)
    assert through(once).tobytes() == once.tobytes()
    assert chain.encode(once, Local(), Bits(0)) == chain.encode(x, Local(), Bits(0))


@pytest.mark.parametrize("d", [1, 7, 8, 9, 1000])
def test_one_bit_a_value_and_one_scale(d):
    chain = Chain.of([SIGNS])
    record = chain.encode(Bits(d).uniform(d) - np.float32(0.5), Local(), Bits(0))
    assert len(record) == 4 + (4 + 4) + 4 + 4 + math.ceil(d / 8) <= chain.most_bytes(d)


def test_zero_counts_as_positive_and_nothing_but_zeros_stays_zero():
    assert through(np.float32([0, -0.0, 3, -1])).tolist() == [1, 1, 1, -1]
    assert through(np.zeros(9, np.float32)).tobytes() == bytes(36)


def test_no_values_take_no_body():
    assert len(through(np.zeros(0, np.float32))) == 0


def test_the_largest_values_do_not_overflow():
    most = np.finfo(np.float32).max
    assert through(np.float32([most, -most, most])).tolist() == [most, -most, most]


@given(VECTOR)
def test_after_top_k_the_signs_and_the_scale_are_those_of_what_is_kept(x):
    kept = np.flatnonzero(through(x, TENTH))
    largest = sorted(range(len(x)), key=lambda at: (-abs(x[at]), at))[: math.ceil(0.1 * len(x))]
    assert set(kept) <= set(largest)
    found = through(x, TENTH)[sorted(largest)]
    assert found.tobytes() == through(x[sorted(largest)]).tobytes()


def test_one_scale_for_the_update_or_one_for_each_tensor():
    for scope, parts in (("tensor", [[0], [1]]), ("update", [[0, 1]])):
        codec = Codec.of(SPEC.trainable, [SIGNS], scope)
        found = list(codec.decode(memoryview(codec.encode(STEP))).values())
        for part in parts:
            wanted = np.concatenate([np.abs(list(STEP.values())[at]).reshape(-1) for at in part]).astype(float).mean()
            assert {abs(value) for at in part for value in found[at].reshape(-1).tolist()} == {
                float(np.float32(wanted))
            }


@pytest.mark.parametrize("stages", [(), (TENTH,)], ids=["signs", "top-k and signs"])
@pytest.mark.parametrize("kind", ["normal", "heavy", "always one"])
def test_with_feedback_what_is_left_out_stays_bounded(kind, stages):
    """With a share delta of w sent, r <- w - s is at most q |w|, q^2 = 1 - delta; so r stays below q / (1 - q) |u|."""
    n, drawn = 400, np.random.default_rng(1)
    residual, worst_share, sizes, steps = np.zeros(n, np.float32), 1.0, [], []
    for _ in range(300):
        u = np.eye(1, n)[0] if kind == "always one" else drawn.standard_normal(n) ** (3 if kind == "heavy" else 1)
        wanted = (u + residual).astype(np.float32)
        sent = through(wanted, *stages)
        residual = wanted - sent
        sizes.append(float(np.linalg.norm(residual)))
        steps.append(float(np.linalg.norm(u)))
        worst_share = min(worst_share, 1 - (sizes[-1] / float(np.linalg.norm(wanted))) ** 2)
    q = math.sqrt(1 - worst_share)
    assert worst_share > 0 and max(sizes) <= 1.001 * q / (1 - q) * max(steps)
    if kind != "always one":
        assert max(sizes) < 3 * max(steps)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_encoded(bad):
    with pytest.raises(WireError) as caught:
        Signs().encode(np.float32([1, bad]), Local(), Bits(0))
    assert caught.value.code == "E-NONFINITE"


@pytest.mark.parametrize(
    ("side", "code"),
    [
        (b"", "E-SHAPE"),
        (bytes(3), "E-SHAPE"),
        (bytes(5), "E-SHAPE"),
        *((np.float32(scale).tobytes(), "E-SCALE") for scale in (-1, -1e-45, np.nan, np.inf, -np.inf)),
    ],
)
def test_hostile_scales(side, code):
    with pytest.raises(WireError) as caught:
        Signs().decode(np.zeros(3, np.uint8), memoryview(side), Shape(3))
    assert caught.value.code == code


def test_bits_after_the_last_sign_are_refused():
    chain, x = Chain.of([SIGNS]), np.float32([1, -1, 2])
    record = bytearray(chain.encode(x, Local(), Bits(0)))
    assert record[-1] == 0b010
    for bit in range(3, 8):
        wrong = bytes([*record[:-1], record[-1] | 1 << bit])
        with pytest.raises(WireError) as caught:
            chain.decode(memoryview(wrong), 3)
        assert caught.value.code == "E-LEVELS"


@pytest.mark.parametrize("settings", [{"levels": 1}, {"norm": "max"}, {"share": 0.5}, {"self": 1}])
def test_there_are_no_settings(settings):
    with pytest.raises(ConfigError, match="stage 'signs' with"):
        Chain.of([{**SIGNS, **settings}])
