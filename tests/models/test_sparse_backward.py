"""The gradients of SWAT against formulas written out by hand, and that the hooks stay where they belong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, fold, unfold

from models.archs import spec_of
from models.init import initial
from models.nets import build, load
from models.weights.settings import Swat
from models.weights.sparse_backward import sparse_backward
from models.weights.swat import SparseWeights
from wire.errors import ConfigError

SPARSITY = 0.7


def filled(layer, seed=1):
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    return layer


def random(*shape, seed=2, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def top(values, sparsity=SPARSITY):
    """Keeps the ceil((1 - sparsity) * n) largest of the whole tensor, by sorting."""
    flat = values.detach().numpy().reshape(-1)
    kept = np.argsort(-np.abs(flat), kind="stable")[: int(np.ceil(round((1 - sparsity) * flat.size, 9)))]
    thin = np.zeros_like(flat)
    thin[kept] = flat[kept]
    return torch.from_numpy(thin.reshape(values.shape))


def linear_by_hand(layer, a, weight, g):
    rows, up = a.reshape(-1, a.shape[-1]), g.reshape(-1, g.shape[-1])
    return up.T @ top(a).reshape(rows.shape), (up @ weight).reshape(a.shape)


def conv2d_by_hand(layer, a, weight, g):
    window = {"kernel_size": weight.shape[2:], "padding": layer.padding, "stride": layer.stride}
    columns, up = unfold(top(a), **window), g.flatten(2)
    gw = torch.einsum("nol,nkl->ok", up, columns).reshape(weight.shape)
    ga = fold(torch.einsum("ok,nol->nkl", weight.flatten(1), up), a.shape[2:], **window)
    return gw, ga


def conv1d_by_hand(layer, a, weight, g):
    """Sums over output places: gw[o,i,k] = sum g[n,o,t] a[n,i,t*s+k-p]; ga is the same sum towards a."""
    (size,), (pad,), (stride,) = layer.kernel_size, layer.padding, layer.stride
    wide = torch.nn.functional.pad(top(a), (pad, pad))
    gw, ga = torch.zeros_like(weight), torch.zeros_like(wide)
    for at in range(g.shape[2]):
        here = slice(at * stride, at * stride + size)
        gw += torch.einsum("no,nik->oik", g[:, :, at], wide[:, :, here])
        ga[:, :, here] += torch.einsum("no,oik->nik", g[:, :, at], weight)
    return gw, ga[:, :, pad : ga.shape[2] - pad]


CASES = {
    "linear": (nn.Linear(12, 7), (9, 12), linear_by_hand),
    "linear without bias": (nn.Linear(12, 7, bias=False), (9, 12), linear_by_hand),
    "linear over time": (nn.Linear(12, 7), (3, 5, 12), linear_by_hand),
    "conv2d": (nn.Conv2d(3, 5, 3, padding=1), (4, 3, 8, 8), conv2d_by_hand),
    "conv2d with steps": (nn.Conv2d(3, 5, (5, 3), stride=2, padding=(2, 1), bias=False), (4, 3, 9, 9), conv2d_by_hand),
    "conv1d": (nn.Conv1d(3, 5, 5, padding=2), (4, 3, 16), conv1d_by_hand),
    "conv1d with steps": (nn.Conv1d(3, 5, 4, stride=2, padding=1), (4, 3, 16), conv1d_by_hand),
}


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_written_out_by_hand(case):
    layer, shape, by_hand = CASES[case]
    own = dict(filled(layer.double()).named_parameters())
    a = random(*shape, dtype=torch.float64).requires_grad_()
    masked = top(own["weight"])
    transform = SparseWeights(Swat(SPARSITY), ("weight",))
    with transform.around(layer):
        out = functional_call(layer, transform.weights(own, torch.Generator()), (a,))
    dense = functional_call(layer, {**own, "weight": masked}, (a,))
    assert torch.equal(out, dense)  # E1: the forward pass sees the whole input and the masked weights
    g = random(*out.shape, seed=3, dtype=torch.float64)
    gw, ga = torch.autograd.grad(out, [own["weight"], a], g)
    wanted_gw, wanted_ga = by_hand(layer, a, masked, g)
    torch.testing.assert_close(gw, wanted_gw, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ga, wanted_ga, rtol=1e-12, atol=1e-12)
    assert torch.equal(ga, torch.autograd.grad(dense, a, g)[0])  # nothing but gw has changed
    assert gw[masked == 0].count_nonzero() > 0  # E2: masked weights have gradients


def thinned(layer, x):
    """Returns what a layer of one output has stored of its input: the gradient of its weights."""
    return torch.autograd.grad(layer(x).sum(), layer.weight)[0][0]


def test_the_threshold_is_reused_for_a_period_and_each_layer_has_its_own():
    net = nn.ModuleList([nn.Linear(20, 1), nn.Linear(20, 1)])
    xs = [random(1, 20, seed=at) * (at + 1) for at in range(7)]
    levels = [float(x.abs().sort().values[0, -6]) for x in xs]
    with sparse_backward(net, {"0.weight", "1.weight"}, SPARSITY, period=3):
        for at, x in enumerate(xs):
            level = levels[at - at % 3]
            wanted = torch.where(x.abs() >= level, x, 0)[0]
            assert torch.equal(thinned(net[0], x), wanted)
            assert torch.equal(thinned(net[1], 128 * x), 128 * wanted)


def test_only_the_chosen_layers_store_less():
    """In a residual net every gradient that is not one of a chosen weight stays the same to the last bit."""
    spec = spec_of("resnet8-8", (3, 16, 16), 10, 4)
    net = build(spec)
    load(net, initial(spec))
    chosen = {f"stage{stage}.0.conv{at}.weight" for stage in (1, 2, 3) for at in (1, 2)}
    x, y = random(8, 3, 16, 16), torch.arange(8)

    def gradients():
        own = dict(net.named_parameters())
        return dict(zip(own, torch.autograd.grad(cross_entropy(net(x), y), [*own.values()]), strict=True))

    before = gradients()
    with sparse_backward(net, chosen, 0.9, 10):
        during = gradients()
    after = gradients()
    assert {name for name in before if not torch.equal(before[name], during[name])} == chosen
    assert all(torch.equal(before[name], after[name]) for name in before)


def hooks_on(net):
    return sum(len(layer._forward_hooks) + len(layer._forward_pre_hooks) for layer in net.modules())


def test_hooks_are_gone_after_the_context_and_after_an_error_in_it():
    layer, x, wrong = filled(nn.Linear(20, 1)), random(1, 20), random(1, 21)
    with sparse_backward(layer, {"weight"}, SPARSITY, 10):
        assert hooks_on(layer) == 2
        with pytest.raises(RuntimeError):
            layer(wrong)
        outside = torch.zeros(1, requires_grad=True)
        stored = (outside * wrong).grad_fn._saved_other
        assert torch.equal(stored, wrong)  # the failed pass has not left its hooks open
        assert thinned(layer, x).count_nonzero() == 6
    assert hooks_on(layer) == 0
    with pytest.raises(ZeroDivisionError), sparse_backward(layer, {"weight"}, SPARSITY, 10):
        raise ZeroDivisionError
    assert hooks_on(layer) == 0 and torch.equal(thinned(layer, x), x[0])


def test_a_pass_without_a_gradient_of_the_weights_ranks_nothing():
    layer = filled(nn.Linear(20, 1))
    small, large = random(1, 20), 100 * random(1, 20)
    with sparse_backward(layer, {"weight"}, SPARSITY, 10):
        with torch.inference_mode():
            layer(large)
        layer.weight.requires_grad_(False)
        layer(large)
        layer.weight.requires_grad_(True)
        assert thinned(layer, small).count_nonzero() == 6


def test_an_input_that_is_a_view_or_given_by_name():
    layer, x = filled(nn.Linear(4, 1)), random(2, 4, 5)
    wanted = top(x.transpose(1, 2)).sum((0, 1))
    with sparse_backward(layer, {"weight"}, SPARSITY, 10):
        out = layer(input=x.transpose(1, 2))
    torch.testing.assert_close(torch.autograd.grad(out.sum(), layer.weight)[0][0], wanted)
    conv, picture = filled(nn.Conv2d(3, 2, 3)), random(2, 6, 6, 3).permute(0, 3, 1, 2)
    with sparse_backward(conv, {"weight"}, SPARSITY, 10):
        out = conv(picture)
    wanted, _ = conv2d_by_hand(conv, picture, conv.weight.detach(), torch.ones_like(out))
    torch.testing.assert_close(torch.autograd.grad(out.sum(), conv.weight)[0], wanted, rtol=1e-5, atol=1e-5)


def test_a_layer_that_stores_another_tensor_is_refused_by_name():
    net = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular"))
    with (
        pytest.raises(ConfigError, match="layer '0' stores another tensor"),
        sparse_backward(net, {"0.weight"}, SPARSITY, 10),
    ):
        net(random(2, 3, 6, 6))
