"""KURE: the kurtosis, its gradient, and what it leaves alone."""

import pytest
import torch

from models.weights.kure import kurtosis, kurtosis_penalty, mean_kurtosis, penalty_of


def source(seed=1):
    return torch.Generator().manual_seed(seed)


def test_kurtosis_of_known_distributions():
    uniform, normal = torch.rand(100_000, generator=source()), torch.randn(100_000, generator=source())
    assert float(kurtosis(uniform)) == pytest.approx(1.8, rel=0.02)
    assert float(kurtosis(normal)) == pytest.approx(3.0, rel=0.02)
    assert float(kurtosis(torch.tensor([-1.0, 1.0]))) == 1.0


def test_kurtosis_knows_neither_scale_nor_place():
    w = torch.randn(7, 9, generator=source(), dtype=torch.float64)
    assert float(kurtosis(w * 1e-3 + 5)) == pytest.approx(float(kurtosis(w)))


@pytest.mark.parametrize("target", [1.8, 3.0])
def test_the_gradient_is_the_closed_formula_and_the_finite_difference(target):
    weights = [
        torch.randn(5, 6, generator=source(2), dtype=torch.float64),
        torch.rand(8, 3, generator=source(), dtype=torch.float64),
    ]
    found = torch.autograd.grad(kurtosis_penalty([w.requires_grad_() for w in weights], target), weights)
    for at, w in enumerate(weights):
        plain = [one.detach().clone() for one in weights]
        z = (plain[at] - plain[at].mean()) / plain[at].std(correction=0)
        kurt = (z**4).mean()
        slope = 4 / (w.numel() * plain[at].std(correction=0)) * (z**3 - (z**3).mean() - z * kurt)
        torch.testing.assert_close(found[at], 2 / len(weights) * (kurt - target) * slope)
        assert found[at].abs().max() > 1e-3
        for entry in [(0, 0), (2, 1), (4, 2)]:
            sides = []
            for nudge in (1e-5, -1e-5):
                plain[at][entry] += nudge
                sides.append(float(kurtosis_penalty(plain, target)))
                plain[at][entry] -= nudge
            assert float(found[at][entry]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5, abs=1e-8)


def test_the_term_shapes_and_does_not_shrink():
    """Scaling the weights changes nothing, so the gradient is at right angles to them."""
    w = torch.randn(20, 20, generator=source(), dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(kurtosis_penalty([w], 1.8), [w])
    assert float((gradient * w.detach()).sum()) == pytest.approx(0, abs=1e-12)
    assert float(gradient.norm()) > 1e-3


def test_descent_makes_gaussian_weights_uniform():
    w = torch.randn(30, 30, generator=source()).requires_grad_()
    for _ in range(300):
        (gradient,) = torch.autograd.grad(kurtosis_penalty([w], 1.8), [w])
        w = (w - 5.0 * gradient).detach().requires_grad_()
    assert mean_kurtosis([w]) == pytest.approx(1.8, abs=0.02)


def test_by_hand_over_the_weights_of_a_net_without_its_biases():
    params = {
        "fc.weight": torch.randn(6, 5, generator=source()),
        "fc.bias": torch.zeros(6),
        "out.weight": torch.rand(3, 6),
    }
    penalty = penalty_of({"penalty": "kure", "strength": 0.5, "target": 2.0})
    gaps = [(float(kurtosis(params[name])) - 2.0) ** 2 for name in ("fc.weight", "out.weight")]
    assert float(penalty(params)) == pytest.approx(0.5 * sum(gaps) / 2, rel=1e-5)
    last = penalty_of({"penalty": "kure", "strength": 0.5, "target": 2.0, "skip": ["first"]})
    assert float(last(params)) == pytest.approx(0.5 * gaps[1], rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.3, -7e8, 1e-30])
def test_equal_entries_have_no_kurtosis_and_no_gradient(value):
    equal = torch.full((10, 10), value).requires_grad_()
    other = torch.randn(10, 10, generator=source()).requires_grad_()
    together = kurtosis_penalty([equal, other], 1.8)
    assert float(together.detach()) == pytest.approx((float(kurtosis(other.detach())) - 1.8) ** 2, rel=1e-5)
    gradients = torch.autograd.grad(together, [equal, other], allow_unused=True)
    assert gradients[0] is None
    assert gradients[1].isfinite().all()
    assert mean_kurtosis([equal]) is None
    assert float(kurtosis_penalty([equal], 1.8)) == 0


def test_strength_0_is_no_penalty_at_all():
    assert penalty_of({"penalty": "kure", "strength": 0}) is None
    assert penalty_of({}) is None
    assert penalty_of({"penalty": "kure"}) is not None


def test_frozen_tensors_are_left_out_but_say_which_is_first():
    params = {name: torch.randn(6, 5, generator=source()) for name in ("a.weight", "b.weight", "c.weight")}
    penalty = penalty_of({"penalty": "kure", "skip": ["first"]}, frozen={"a.weight"})
    gaps = [(float(kurtosis(params[name])) - 1.8) ** 2 for name in ("b.weight", "c.weight")]
    assert float(penalty(params)) == pytest.approx(sum(gaps) / 2, rel=1e-5)


@pytest.mark.parametrize("scale", [1e-10, 1e-12, 1e-30])
def test_weights_next_to_nothing_have_a_kurtosis_and_a_gradient(scale):
    w = torch.randn(30, 30, generator=source())
    small = (w * scale).requires_grad_()
    assert float(kurtosis(small.detach())) == pytest.approx(float(kurtosis(w)), rel=1e-4)
    (gradient,) = torch.autograd.grad(kurtosis_penalty([small], 1.8), [small])
    assert torch.isfinite(gradient).all()
