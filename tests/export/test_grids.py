"""Grids: what each range promises, on usual weights and on odd ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.forms import Integer, Uniform
from export.grids import PROFILES, RANGES, fitted, place, sqnr_db
from export.refused import ExportError
from models.weights.grids import place as trained
from models.weights.grids import step_of
from wire.bits import Bits

WIDTHS = (2, 3, 4, 5, 6, 8)


def weights(*shape):
    bits = Bits.of("weights", shape)
    total = sum(bits.uniform(int(np.prod(shape))) for _ in range(6)) - np.float32(3)
    return (total * np.float32(0.1)).reshape(shape)


def lost(weight, form):
    return np.square(form.values().astype(np.float64) - weight).reshape(len(weight), -1).sum(1)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("bits", WIDTHS)
def test_the_ranges_that_search_lose_less(bits, profile):
    weight = weights(7, 3, 5, 5)
    error = {name: lost(weight, place(weight, bits, name, profile)) for name in RANGES}
    slack = 1.001 if profile == "float" else 1.02  # whole offsets are a little off
    assert (error["mse"] <= error["minmax"] * slack).all()
    assert (error["ls"] <= error["mse"] * slack).all()
    assert (error["symmetric_ls"] <= error["symmetric"] * slack).all()


@pytest.mark.parametrize("bits", WIDTHS)
def test_minmax_clips_nothing(bits):
    weight = weights(6, 40)
    form = place(weight, bits, "minmax", "float")
    assert isinstance(form, Uniform)
    half = form.scale[:, None] / 2
    assert (np.abs(form.values() - weight) <= half * 1.001).all()
    whole = place(weight, bits, "minmax", "int8")
    assert isinstance(whole, Integer)
    half = whole.scale[:, None] * (whole.factor + 1) / 2  # and an offset rounded to a whole number
    assert (np.abs(whole.values() - weight) <= half * 1.001).all()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("bits", WIDTHS)
def test_symmetric_is_the_grid_of_training(bits, profile):
    weight = weights(5, 4, 3, 3)
    values = torch.from_numpy(weight)
    wanted = trained(values, step_of(values, bits, channel=True), bits).numpy()
    form = place(weight, bits, "symmetric", profile)
    off = np.abs(form.values() - wanted)
    step = np.abs(weight).reshape(5, -1).max(1) / (2 ** (bits - 1) - 1)
    assert (off < 1e-5).mean() > 0.99  # a value between two steps may go either way
    assert (off.reshape(5, -1).max(1) <= step * 1.001).all()
    zeros = place(np.where(np.abs(weight) < 0.05, 0, weight).astype(np.float32), bits, "symmetric", profile)
    assert not zeros.values()[np.abs(weight) < 0.05].any()


@pytest.mark.parametrize("rule", RANGES)
@pytest.mark.parametrize("bits", WIDTHS)
def test_the_whole_numbers_cost_next_to_nothing(bits, rule):
    weight = weights(8, 4, 5, 5)
    lost_db = sqnr_db(weight, place(weight, bits, rule, "float")) - sqnr_db(weight, place(weight, bits, rule, "int8"))
    assert lost_db < (1.5 if bits == 8 else 0.5)  # 256 whole numbers leave no room to move the range


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("rule", RANGES)
def test_constant_and_odd_channels(rule, profile):
    weight = np.zeros((6, 9), np.float32)
    weight[1], weight[2], weight[3] = 0.5, -0.25, weights(9)
    weight[4], weight[5] = weights(9) * 1e-30, 0.9 + weights(9) * 0.01
    for bits in WIDTHS:
        form = place(weight, bits, rule, profile)
        assert np.isfinite(form.scale).all()
        assert (form.scale > 0).all()
        values = form.values()
        assert np.abs(values[0]).max() <= 1e-3
        assert np.allclose(values[1:3], weight[1:3], rtol=0.02 if profile == "float" or bits > 2 else 0.4)
        assert np.abs(values[4]).max() <= 1e-3
        assert (np.abs(values[5] - weight[5]) < 0.5).all()
        assert not place(weight[:1], bits, rule, profile).values().any()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(RANGES),
    st.sampled_from(PROFILES),
    st.integers(2, 8),
    st.lists(st.floats(-(2.0**60), 2.0**60, width=32), min_size=4, max_size=12),
)
def test_any_weights_get_a_form(rule, profile, bits, values):
    weight = np.array(values[: len(values) // 2 * 2], np.float32).reshape(2, -1)
    form = place(weight, bits, rule, profile)
    assert np.isfinite(form.values()).all()
    most = np.abs(weight).reshape(2, -1).max(1)
    assert (np.abs(form.values()).max(1) <= most * 2.5 + most.max() * 2e-2 + 1e-2).all()


def test_codes_that_were_cut_are_fitted_anew():
    weight = weights(8, 4, 5, 5)
    wide = place(weight, 8, "minmax", "float")
    for bits in (6, 5, 4, 3, 2):
        form = fitted(weight, wide.codes >> (8 - bits), bits)
        assert np.array_equal(form.codes, wide.codes >> (8 - bits))
        alone = sqnr_db(weight, place(weight, bits, "minmax", "float"))
        assert sqnr_db(weight, form) > alone - 1.5
    assert fitted(weight, wide.codes, 8).codes is wide.codes


@pytest.mark.parametrize(
    ("weight", "bits", "rule", "profile"),
    [
        (np.ones((2, 2), np.float32), 1, "ls", "float"),
        (np.ones((2, 2), np.float32), 9, "ls", "float"),
        (np.ones((2, 2), np.float32), 4, "kl", "float"),
        (np.ones((2, 2), np.float32), 4, "ls", "int4"),
        (np.ones(2, np.float32), 4, "ls", "float"),
        (np.ones((0, 2), np.float32), 4, "ls", "float"),
        (np.array([[1, np.nan]], np.float32), 4, "ls", "float"),
        (np.array([[1, 2.0**61]], np.float32), 4, "ls", "int8"),
    ],
)
def test_what_has_no_grid_is_refused(weight, bits, rule, profile):
    with pytest.raises(ExportError):
        place(weight, bits, rule, profile)
