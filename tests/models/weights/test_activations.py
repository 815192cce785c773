"""Activations on their grids: values, ranges, gradients, hooks."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from models.archs import spec_of
from models.init import initial
from models.nets import build, load
from models.weights.activations import RangedActivations, Site, place_activations
from models.weights.settings import Activations
from wire.errors import StateError


def source(seed=1):
    return torch.Generator().manual_seed(seed)


def net_of(arch, shape):
    spec = spec_of(arch, shape, 5, 3)
    net = build(spec)
    load(net, initial(spec))
    return net


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_values_of_both_grids(bits):
    a = torch.randn(50, 60, generator=source())
    for given, site in ((a.relu(), Site(float(a.max()), False)), (a, Site(float(a.abs().max()), True))):
        step = site.range / (2 ** (bits - site.signed) - 1)
        placed = place_activations(given, site, bits)
        assert len(placed.unique()) <= 2**bits
        assert float((placed - given).abs().max()) <= step / 2 * (1 + 1e-4)
        assert torch.equal(place_activations(placed, site, bits), placed)
        assert 0 in placed


def test_what_is_beyond_the_range_is_clipped_and_has_no_gradient():
    a = torch.tensor([-2.0, -0.6, 0.2, 0.9, 1.0, 3.0]).requires_grad_()
    signed, unsigned = place_activations(a, Site(1.0, True), 8), place_activations(a, Site(1.0, False), 8)
    assert [float(signed.detach().min()), float(signed.detach().max())] == [-1, 1]
    assert float(unsigned.detach().min()) == 0
    assert torch.autograd.grad(signed.sum(), a)[0].tolist() == [0, 1, 1, 1, 1, 0]
    assert torch.autograd.grad(unsigned.sum(), a)[0].tolist() == [0, 0, 1, 1, 1, 0]


def test_all_zero_activations_stay_zero():
    assert torch.equal(place_activations(torch.zeros(3, 4), Site(0.0, False), 4), torch.zeros(3, 4))


def test_ranges_are_running_means_of_the_largest_and_stand_still_in_evaluation():
    net = nn.Sequential(nn.ReLU())
    ranged = RangedActivations(Activations(8, keep=0.75))
    with ranged.around(net):
        net(torch.tensor([[1.0, 4.0]]))
        assert ranged.sites == {"input": Site(4.0, False), "0": Site(4.0, False)}
        net(torch.tensor([[-8.0, 2.0]]))
        assert ranged.sites["input"] == Site(0.75 * 4 + 0.25 * 8, True)
        assert ranged.sites["0"].signed is False
        assert ranged.sites["0"].range == pytest.approx(0.75 * 4 + 0.25 * 2, rel=0.02)
        net(torch.tensor([[1.0, 1.0]]))
        assert ranged.sites["input"].signed is True  # once signed, always signed
        kept = dict(ranged.sites)
        net.eval()
        net(torch.tensor([[100.0, -100.0]]))
    assert ranged.sites == kept


def test_evaluation_before_any_training_has_no_range():
    net = nn.Sequential(nn.ReLU()).eval()
    with RangedActivations(Activations(8)).around(net), pytest.raises(StateError, match="no range is known"):
        net(torch.ones(1, 2))


@pytest.mark.parametrize(
    ("arch", "shape", "sites"),
    [
        ("mlp-8-6", (1, 4, 4), {"input", "relu1", "relu2"}),
        ("cnn-4-8", (1, 8, 8), {"input", "relu1", "relu2"}),
        ("cnn1d-4-8", (3, 16), {"input", "relu1", "relu2", "mean"}),
        (
            "resnet8-8",
            (1, 8, 8),
            {"input", "stem_relu", "mean"} | {f"stage{s}.0.relu{r}" for s in (1, 2, 3) for r in (1, 2)},
        ),
    ],
)
def test_every_site_of_a_net_is_placed_also_through_functional_call(arch, shape, sites):
    net, x = net_of(arch, shape), torch.randn(6, *shape, generator=source())
    seen = {}
    ranged = RangedActivations(Activations(3))
    with ranged.around(net):
        handles = [
            module.register_forward_hook(lambda _, given, out, name=name: seen.__setitem__(name, out.detach()))
            for name, module in net.named_modules()
            if name in sites
        ]
        params = dict(net.named_parameters())
        answer = functional_call(net, params, (x,))
        for handle in handles:
            handle.remove()
    assert set(ranged.sites) == sites
    assert {name for name, site in ranged.sites.items() if site.signed} == {"input"}
    assert set(seen) == sites - {"input"}
    assert all(len(values.unique()) <= 2**3 for values in seen.values())
    gradients = torch.autograd.grad(answer.square().sum(), list(params.values()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(gradient.abs().max() > 0 for gradient in gradients)


def test_hooks_are_gone_afterwards_even_after_an_error():
    net, x = net_of("resnet8-8", (1, 8, 8)), torch.randn(2, 1, 8, 8, generator=source())
    plain = net(x)
    ranged = RangedActivations(Activations(2))
    with pytest.raises(KeyError), ranged.around(net):
        assert not torch.equal(net(x), plain)
        raise KeyError
    assert torch.equal(net(x), plain)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_at_32_bits_nothing_happens():
    net, x = net_of("mlp-8", (1, 4, 4)), torch.randn(2, 1, 4, 4, generator=source())
    plain, ranged = net(x), RangedActivations(Activations(32))
    with ranged.around(net):
        assert torch.equal(net(x), plain)
    assert ranged.sites == {}


def test_weights_are_left_alone():
    params = {"w": torch.randn(3, 3, generator=source())}
    ranged = RangedActivations(Activations(2))
    assert ranged.weights(params, source())["w"] is params["w"]
    assert ranged.deployed(params)["w"] is params["w"]


def test_eight_bits_move_the_answer_little_and_two_bits_more():
    net, x = net_of("mlp-32", (1, 4, 4)), torch.randn(40, 1, 4, 4, generator=source())
    plain, away = net(x).detach(), {}
    for bits in (2, 4, 8):
        with RangedActivations(Activations(bits)).around(net):
            away[bits] = float((net(x).detach() - plain).abs().mean() / plain.abs().mean())
    assert 0 < away[8] < away[4] / 4 < away[2] / 8
    assert away[8] < 0.02
