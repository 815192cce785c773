"""Claims E1 to E5 of ZeroFL (Qiu et al., 2022) on the transform of weights, and what its authors' code adds to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from models.archs import spec_of
from models.data import Dataset
from models.init import initial
from models.measure import measure
from models.nets import build, load
from models.weights.settings import Swat
from models.weights.swat import SparseWeights
from models.weights.threshold import Threshold, kept_count, threshold_of
from models.weights.transform import shaped_names, transforms_of
from wire.errors import ConfigError

NETS = {
    "cnn-8-16-16": (3, 16, 16),
    "cnn1d-8-16-16": (6, 32),
    "leaf": (1, 12, 12),
    "mlp-30-20-10": (25,),
    "resnet8-8": (3, 16, 16),
}
CONVS = {f"stage{s}.0.conv{c}.weight" for s in (1, 2, 3) for c in (1, 2)}
SHORTCUTS = {f"stage{s}.0.shortcut.weight" for s in (2, 3)}


def generator():
    return torch.Generator().manual_seed(1)


def net_of(arch, seed=3):
    spec = spec_of(arch, NETS[arch], 10, seed)
    net = build(spec)
    load(net, initial(spec))
    return net


def swat_of(net, sparsity=0.9, period=10, skip=("first", "last")):
    names = shaped_names({name: tuple(value.shape) for name, value in net.named_parameters()})
    table = {"transform": "swat", "sparsity": sparsity, "period": period, "skip": list(skip)}
    (transform,) = transforms_of([table], names)
    return transform


def batch_of(arch, count=12):
    draw = torch.Generator().manual_seed(5)
    return torch.rand(count, *NETS[arch], generator=draw), torch.arange(count) % 10


def largest(values, k):
    """The mask of the k largest, by a stable sort: another way than the code's."""
    order = np.argsort(-np.abs(values.detach().numpy().reshape(-1)), kind="stable")[:k]
    mask = np.zeros(values.numel(), bool)
    mask[order] = True
    return mask.reshape(values.shape)


@pytest.mark.parametrize(
    ("sparsity", "count", "kept"),
    [(0.9, 100, 10), (0.9, 101, 11), (0.95, 400, 20), (0.95, 3, 1), (0.5, 7, 4), (0.7, 10, 3), (0, 9, 9)],
)
def test_how_many_stay(sparsity, count, kept):
    assert kept_count(sparsity, count) == kept


@pytest.mark.parametrize("sparsity", [0.7, 0.95])
@pytest.mark.parametrize("arch", NETS)
def test_each_layer_keeps_its_own_largest_and_the_ends_stay_dense(arch, sparsity):
    own = dict(net_of(arch).named_parameters())
    transform = swat_of(net_of(arch), sparsity)
    chosen = [name for name in own if own[name].dim() > 1 and name not in SHORTCUTS][1:-1]
    for shaped in (transform.weights(own, generator()), transform.deployed(own)):
        assert list(shaped) == list(own)
        assert [name for name in own if shaped[name] is not own[name]] == chosen
        for name in chosen:
            mask = largest(own[name], math.ceil(round((1 - sparsity) * own[name].numel(), 9)))
            assert np.array_equal(shaped[name].detach().numpy(), np.where(mask, own[name].detach().numpy(), 0))


def test_a_residual_net_has_dense_shortcuts_and_sparse_3x3_convolutions():
    net = net_of("resnet8-8")
    own = dict(net.named_parameters())
    shaped = swat_of(net).weights(own, generator())
    assert {name for name in own if shaped[name] is not own[name]} == CONVS
    assert set(own) >= SHORTCUTS


def test_skip_decides_which_layers_are_dense():
    net = net_of("leaf")
    own = dict(net.named_parameters())
    shaped = swat_of(net, skip=["last"]).weights(own, generator())
    assert [name for name in own if shaped[name] is not own[name]] == ["conv1.weight", "conv2.weight", "fc1.weight"]


def test_the_gradient_passes_the_mask_to_every_entry():
    weight = torch.randn(6, 5, generator=generator(), requires_grad=True)
    upstream = torch.randn(6, 5, generator=generator())
    shaped = SparseWeights(Swat(0.9), ("w",)).weights({"w": weight}, generator())["w"]
    assert int((shaped == 0).sum()) == 27
    (gradient,) = torch.autograd.grad((shaped * upstream).sum(), weight)
    assert torch.equal(gradient, upstream)


@pytest.mark.parametrize("arch", ["cnn-8-16-16", "cnn1d-8-16-16", "mlp-30-20-10"])
def test_one_step_moves_masked_weights_and_leaves_the_parameter_dense(arch):
    net = net_of(arch)
    own = dict(net.named_parameters())
    before = {name: value.detach().clone() for name, value in own.items()}
    transform = swat_of(net)
    x, y = batch_of(arch)
    shaped = transform.weights(own, generator())
    with transform.around(net):
        loss = cross_entropy(functional_call(net, shaped, (x,)), y)
    gradients = dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))
    with torch.no_grad():
        for name, weight in own.items():
            weight.sub_(gradients[name], alpha=0.1)
    for name in [name for name in own if shaped[name] is not own[name]]:
        masked = shaped[name].detach() == 0
        assert torch.equal(own[name].detach(), before[name].sub(gradients[name], alpha=0.1))
        assert int(((own[name].detach() != before[name]) & masked).sum()) > 0
        assert int(torch.count_nonzero(own[name])) == own[name].numel()


def test_evaluation_masks_and_can_show_the_unmasked_net():
    net = net_of("cnn-8-16-16")
    own = {name: value.detach() for name, value in net.named_parameters()}
    masked = swat_of(net).deployed(own)
    x, y = batch_of("cnn-8-16-16")
    data = Dataset(x.numpy(), y.numpy())
    loss = measure(net, data, weights=masked)["loss"]
    by_hand = net_of("cnn-8-16-16")
    load(by_hand, {name: value.numpy() for name, value in masked.items()})
    assert loss == measure(by_hand, data)["loss"]
    assert loss != measure(net, data)["loss"]
    assert torch.equal(swat_of(net).deployed(masked)["conv2.weight"], masked["conv2.weight"])


def test_the_threshold_is_ranked_on_every_period_th_call_and_reused_between():
    draw = generator()
    weights = [torch.randn(5, 10, generator=draw) * (at + 1) for at in range(8)]
    transform = SparseWeights(Swat(0.8, period=3), ("w",))
    levels = [np.sort(np.abs(weight.numpy().reshape(-1)))[-10] for weight in weights]
    for at, weight in enumerate(weights):
        found = transform.weights({"w": weight}, generator())["w"]
        assert np.array_equal(found.numpy() != 0, np.abs(weight.numpy()) >= levels[at - at % 3])
        assert (np.count_nonzero(found) == 10) == (at % 3 == 0)


def test_a_weight_that_grows_comes_back_before_the_next_ranking():
    weight = torch.linspace(0.1, 1, 10).reshape(2, 5)
    transform = SparseWeights(Swat(0.8, period=10), ("w",))
    assert transform.weights({"w": weight}, generator())["w"].count_nonzero() == 2
    grown = weight.clone()
    grown[0, 0] = -3
    assert transform.weights({"w": grown}, generator())["w"][0, 0] == -3


def test_a_threshold_of_zero_is_not_reused():
    """A global model that arrives with fewer non-zeros than the layer keeps must not train dense for a period."""
    threshold = Threshold(0.8, 10)
    assert threshold.next(torch.zeros(10)) == 0
    assert threshold.next(torch.arange(10.0)) == 8
    assert threshold.next(torch.arange(20.0)) == 8
    zeros = SparseWeights(Swat(0.9), ("w",)).deployed({"w": torch.zeros(4, 4)})["w"]
    assert torch.equal(zeros, torch.zeros(4, 4))


def test_ties_are_all_kept():
    assert threshold_of(torch.tensor([3.0, -2, 2, 1]), 2) == 2
    assert SparseWeights(Swat(0.5), ("w",)).deployed({"w": torch.tensor([[3.0, -2], [2, 1]])})["w"].count_nonzero() == 3


def test_no_sparsity_changes_nothing():
    net = net_of("cnn-8-16-16")
    own = dict(net.named_parameters())
    transform = swat_of(net, 0.0)
    for shaped in (transform.weights(own, generator()), transform.deployed(own)):
        assert all(shaped[name] is own[name] for name in own)
    with transform.around(net):
        assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in net.modules())


def test_nothing_is_drawn_and_the_same_weights_give_the_same_masks():
    net, draws = net_of("cnn-8-16-16"), generator()
    own = dict(net.named_parameters())
    first = swat_of(net).weights(own, draws)
    again = swat_of(net).weights(own, torch.Generator().manual_seed(99))
    assert torch.equal(draws.get_state(), generator().get_state())
    assert all(torch.equal(first[name], again[name]) for name in own)


def test_a_net_without_a_layer_to_thin_is_refused():
    with pytest.raises(ConfigError, match="no tensor to work on"):
        swat_of(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))
    points = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(3)))
    with pytest.raises(ConfigError, match="are convolutions of one point"):
        swat_of(points).weights(dict(points.named_parameters()), generator())
