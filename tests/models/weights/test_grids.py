"""The exact claims about uniform symmetric grids, for both rules and both granularities."""

import pytest
import torch

from models.weights.grids import highest, place, quantised, step_of
from wire.errors import ConfigError

WIDTHS = [2, 3, 4, 5, 6, 8]


def gaussian(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rule", ["minmax", "lsq"])
@pytest.mark.parametrize("bits", WIDTHS)
def test_the_values_are_few_symmetric_and_hold_zero(bits, rule):
    w = gaussian(40, 50)
    step = step_of(w, bits, rule=rule)
    multiples = {round(value) for value in (place(w, step, bits) / step).flatten().tolist()}
    assert len(multiples) <= 2**bits - 1
    assert multiples <= set(range(-highest(bits), highest(bits) + 1))
    assert 0 in multiples
    assert torch.equal(place(-w, step, bits), -place(w, step, bits))
    assert len(place(w, step, bits).unique()) <= 2**bits


@pytest.mark.parametrize("channel", [False, True])
@pytest.mark.parametrize("bits", WIDTHS)
def test_no_weight_moves_by_more_than_half_a_step(bits, channel):
    w = gaussian(40, 50)
    step = step_of(w, bits, channel)
    assert ((place(w, step, bits) - w).abs() <= step / 2 * (1 + 1e-5)).all()
    assert (place(w, step, bits) - w).abs().max() > step.min() / 4  # it does move


def test_two_bits_are_ternary_and_the_largest_weight_stays():
    w = torch.tensor([[0.9, -0.4], [0.44, -1.0]])
    assert place(w, step_of(w, 2), 2).tolist() == [[1.0, 0.0], [0.0, -1.0]]


@pytest.mark.parametrize("rule", ["minmax", "lsq"])
@pytest.mark.parametrize("bits", WIDTHS)
def test_placing_twice_is_placing_once(bits, rule):
    w = gaussian(40, 50)
    step = step_of(w, bits, True, rule)
    once = place(w, step, bits)
    assert torch.equal(place(once, step, bits), once)
    assert not torch.equal(once, w)


def test_the_error_is_a_twelfth_of_the_squared_step_and_falls_fourfold_with_a_bit():
    """The ratio of two steps is (2^b - 1) / (2^(b-1) - 1): its square falls from 4.6 at 4 to 5 bits towards 4."""
    w = torch.rand(100, 1000, generator=torch.Generator().manual_seed(3)) * 2 - 1
    errors = {}
    for bits in range(4, 11):
        step = step_of(w, bits)
        errors[bits] = float((place(w, step, bits) - w).square().mean())
        assert errors[bits] == pytest.approx(float(step) ** 2 / 12, rel=0.02)
    for bits in range(4, 10):
        exact = ((2**bits - 1) / (2 ** (bits - 1) - 1)) ** 2
        assert 4 < exact < 4.6
        assert errors[bits] / errors[bits + 1] == pytest.approx(exact, rel=0.03)


@pytest.mark.parametrize("rule", ["minmax", "lsq"])
@pytest.mark.parametrize("shape", [(5, 40), (5, 4, 3, 3), (5, 4, 3)])
def test_a_channel_is_treated_as_a_tensor_of_its_own(shape, rule):
    w = gaussian(*shape) * torch.tensor([1, 10, 0.1, 3, 1e-3]).reshape(5, *[1] * (len(shape) - 1))
    step = step_of(w, 3, True, rule)
    assert step.shape == (5, *[1] * (len(shape) - 1))
    for at in range(5):
        alone = step_of(w[at : at + 1], 3, False, rule)
        assert torch.equal(place(w, step, 3)[at : at + 1], place(w[at : at + 1], alone, 3))


def test_one_step_for_a_tensor_by_hand():
    w = torch.tensor([[1.0, -3.5], [0.2, 2.0]])
    assert step_of(w, 4).tolist() == [[0.5]]
    assert step_of(w, 4, True).flatten().tolist() == pytest.approx([0.5, 2 / 7])


@pytest.mark.parametrize("bits", WIDTHS)
def test_least_squares_is_never_worse_than_minmax(bits):
    for seed in range(5):
        w = gaussian(60, 60, seed=seed) ** (1 if seed % 2 else 3)
        for channel in (False, True):
            errors = [
                (place(w, step_of(w, bits, channel, rule), bits) - w).square().sum(1) for rule in ("minmax", "lsq")
            ]
            gains = errors[0] - errors[1] if channel else errors[0].sum() - errors[1].sum()
            assert (gains >= -1e-4).all()
            assert gains.sum() > 0


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_least_squares_finds_what_a_fine_search_finds(bits):
    w = gaussian(60, 60)
    shares = [widest * float(step_of(w, bits)) for widest in torch.linspace(0.02, 1, 500)]
    searched = min(float((place(w, step, bits) - w).square().mean()) for step in shares)
    step = step_of(w, bits, rule="lsq")
    assert float((place(w, step, bits) - w).square().mean()) <= searched * 1.02


def test_the_least_squares_step_of_a_long_tensor_is_found_on_a_sample():
    w = gaussian(300, 300)  # more entries than the sample holds
    error = {rule: float((place(w, step_of(w, 2, rule=rule), 2) - w).square().mean()) for rule in ("minmax", "lsq")}
    assert error["lsq"] == pytest.approx(0.19, abs=0.003)  # the best that three levels do for a Gaussian
    assert error["minmax"] > 0.8


def test_a_sample_that_misses_the_large_weights_does_not_make_least_squares_worse_than_minmax():
    w = torch.full((1, 1 << 17), 0.36)
    w[0, 1::2] = 1.0
    assert torch.equal(step_of(w, 3, rule="lsq"), step_of(w, 3))


@pytest.mark.parametrize("rule", ["minmax", "lsq"])
@pytest.mark.parametrize("channel", [False, True])
def test_zeros_stay_zeros(channel, rule):
    w = gaussian(4, 9)
    w[2] = 0
    for zeros in (torch.zeros(3, 5), w):
        step = step_of(zeros, 3, channel, rule)
        assert (step > 0).all()
        placed = place(zeros, step, 3)
        assert placed.isfinite().all()
        assert (placed[zeros == 0] == 0).all()


def test_a_step_has_no_gradient_and_the_weights_stay():
    w = gaussian(4, 5).requires_grad_()
    before = w.detach().clone()
    for rule in ("minmax", "lsq"):
        step = step_of(w, 3, rule=rule)
        place(w.detach(), step, 3)
        assert not step.requires_grad
    assert torch.equal(w.detach(), before)


def test_a_model_is_placed_by_name_and_at_32_bits_left_alone():
    params = {"fc.weight": gaussian(4, 5), "fc.bias": gaussian(4), "out.weight": gaussian(2, 4)}
    placed = quantised(params, ["fc.weight"], 3)
    assert list(placed) == list(params)
    assert torch.equal(placed["fc.weight"], place(params["fc.weight"], step_of(params["fc.weight"], 3), 3))
    assert placed["fc.bias"] is params["fc.bias"]
    assert placed["out.weight"] is params["out.weight"]
    same = quantised(params, list(params), 32)
    assert all(same[name] is params[name] for name in params)


@pytest.mark.parametrize("bits", [1, 0, -3, 17, 33, 2.0, True])
def test_widths_without_a_grid(bits):
    with pytest.raises(ConfigError, match="bits"):
        step_of(gaussian(2, 2), bits)
    with pytest.raises(ConfigError, match="bits"):
        quantised({}, [], bits)


def test_float_has_no_step_and_rules_are_two():
    with pytest.raises(ConfigError, match="no grid"):
        step_of(gaussian(2, 2), 32)
    with pytest.raises(ConfigError, match="choose minmax or lsq"):
        step_of(gaussian(2, 2), 4, rule="mse")
