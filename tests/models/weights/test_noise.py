"""APQN: the noise's mean, variance and bounds, and that it stays out of the master weights and of the gradient."""

import pytest
import torch

from models.weights.grids import step_of
from models.weights.noise import Noise
from models.weights.settings import Apqn


def source(seed=1):
    return torch.Generator().manual_seed(seed)


def weights(*shape):
    return {"w": torch.randn(shape, generator=source(9)), "b": torch.zeros(3)}


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_mean_variance_and_bounds(bits):
    params = weights(300, 300)
    step = float(step_of(params["w"], bits))
    noise = (Noise(Apqn((bits,)), ("w",)).weights(params, source())["w"] - params["w"]) / step
    assert abs(float(noise.mean())) < 5 / (12 * noise.numel()) ** 0.5
    assert float(noise.var()) == pytest.approx(1 / 12, rel=0.02)
    assert float(noise.abs().max()) <= 0.5 + 1e-5
    assert float(noise.abs().max()) > 0.49


def test_noise_of_a_channel_is_as_wide_as_its_own_step():
    params = {"w": torch.randn(3, 20_000, generator=source()) * torch.tensor([[1.0], [100.0], [0.01]])}
    noise = Noise(Apqn((4,), grid="channel"), ("w",)).weights(params, source())["w"] - params["w"]
    spread = noise.std(1) / step_of(params["w"], 4, True).flatten()
    assert spread.tolist() == pytest.approx([12**-0.5] * 3, rel=0.02)


def test_the_noisy_weights_are_unbiased():
    params, draw = weights(6, 7), source()
    noise = Noise(Apqn((3,)), ("w",))
    mean = sum(noise.weights(params, draw)["w"] for _ in range(4000)) / 4000
    deviation = float(step_of(params["w"], 3)) * (1 / 12 / 4000) ** 0.5
    assert float((mean - params["w"]).abs().max()) < 5 * deviation


def test_noise_is_fresh_at_every_step_and_the_same_for_the_same_seed():
    params, noise = weights(6, 7), Noise(Apqn((3,)), ("w",))
    draw = source()
    first, second = (noise.weights(params, draw)["w"] for _ in range(2))
    assert not torch.equal(first, second)
    assert torch.equal(noise.weights(params, source())["w"], first)
    assert not torch.equal(noise.weights(params, source(2))["w"], first)


def test_the_gradient_is_the_identity_and_does_not_pass_the_step():
    w = weights(6, 7)["w"].requires_grad_()
    upstream = torch.randn(6, 7, generator=source(3))
    (gradient,) = torch.autograd.grad(Noise(Apqn((3,)), ("w",)).weights({"w": w}, source())["w"], w, upstream)
    assert torch.equal(gradient, upstream)


def test_only_named_tensors_change_and_none_in_place():
    params = weights(6, 7)
    before = {name: value.clone() for name, value in params.items()}
    shaped = Noise(Apqn((3,)), ("w",)).weights(params, source())
    assert list(shaped) == list(params)
    assert shaped["b"] is params["b"]
    assert shaped["w"] is not params["w"]
    assert all(torch.equal(params[name], before[name]) for name in params)


def test_at_32_bits_there_is_no_noise():
    params = weights(6, 7)
    assert all(value is params[name] for name, value in Noise(Apqn((32,)), ("w",)).weights(params, source()).items())


def test_of_several_widths_one_is_drawn_a_step():
    params, draw = weights(200, 50), source()
    noise = Noise(Apqn((2, 4, 8)), ("w",))
    spreads = {bits: float(step_of(params["w"], bits)) / 12**0.5 for bits in (2, 4, 8)}
    seen = set()
    for _ in range(30):
        spread = float((noise.weights(params, draw)["w"] - params["w"]).std())
        seen.update(bits for bits, expected in spreads.items() if spread == pytest.approx(expected, rel=0.05))
    assert seen == {2, 4, 8}
