"""QAT and MQAT: exact values on the grid, the straight-through gradient, and master weights that stay float."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.func import functional_call

from models.weights.fake_quant import straight
from models.weights.grids import highest, place, step_of
from models.weights.multibit import drawn
from models.weights.transform import shaped_names, transforms_of


def source(seed=1):
    return torch.Generator().manual_seed(seed)


def weights_of_a_net():
    shapes = {"fc1.weight": (12, 8), "fc1.bias": (12,), "fc2.weight": (12, 12), "fc3.weight": (3, 12), "fc3.bias": (3,)}
    draw = source(7)
    return {name: torch.randn(shape, generator=draw).requires_grad_() for name, shape in shapes.items()}


def made(params, **table):
    (transform,) = transforms_of([table], shaped_names({name: tuple(w.shape) for name, w in params.items()}))
    return transform


def width_of(shaped, master, widths):
    """Returns the one width whose grid these weights are on."""
    (found,) = [b for b in widths if torch.equal(shaped, place(master, step_of(master, b), b))]
    return found


@pytest.mark.parametrize("rule", ["minmax", "lsq"])
@pytest.mark.parametrize("channel", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_forward_values_are_the_grids_own(bits, channel, rule):
    w = torch.randn(30, 40, generator=source()).requires_grad_()
    shaped = straight(w, bits, channel, rule)
    assert torch.equal(shaped.detach(), place(w.detach(), step_of(w, bits, channel, rule), bits))
    for row in shaped if channel else [shaped]:
        assert len(row.unique()) <= 2**bits


@pytest.mark.parametrize("channel", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_with_minmax_the_gradient_is_the_identity(bits, channel):
    w = torch.randn(30, 40, generator=source()).requires_grad_()
    upstream = torch.randn(30, 40, generator=source(2))
    (gradient,) = torch.autograd.grad(straight(w, bits, channel, "minmax"), w, upstream)
    assert torch.equal(gradient, upstream)


def test_with_minmax_the_largest_weight_keeps_its_gradient_also_where_its_grid_point_is_rounded_down():
    beyond = 0
    for seed in range(60):
        w = torch.randn(5, 7, generator=source(seed)).requires_grad_()
        beyond += int((w.detach().abs() > step_of(w, 3) * highest(3)).any())
        (gradient,) = torch.autograd.grad(straight(w, 3, False, "minmax").sum(), w)
        assert torch.equal(gradient, torch.ones(5, 7))
    assert beyond


@pytest.mark.parametrize("channel", [False, True])
def test_with_least_squares_the_gradient_stops_beyond_the_grid(channel):
    w = torch.randn(30, 40, generator=source()).requires_grad_()
    upstream = torch.randn(30, 40, generator=source(2))
    (gradient,) = torch.autograd.grad(straight(w, 2, channel, "lsq"), w, upstream)
    inside = w.detach().abs() <= step_of(w, 2, channel, "lsq") * highest(2)
    assert 0.1 < float(inside.float().mean()) < 0.9
    assert torch.equal(gradient, upstream * inside)


@pytest.mark.parametrize("table", [{"transform": "qat", "bits": 32}, {"transform": "mqat", "bits": [32]}])
def test_at_32_bits_all_tensors_are_the_same_objects(table):
    params = weights_of_a_net()
    shaped = made(params, **table).weights(params, source())
    assert list(shaped) == list(params)
    assert all(shaped[name] is params[name] for name in params)


@pytest.mark.parametrize("table", [{"transform": "qat", "bits": 3}, {"transform": "mqat", "bits": 3}])
def test_only_weights_that_are_not_skipped_change_and_names_stay(table):
    params = weights_of_a_net()
    shaped = made(params, **table, skip=["first", "fc3*"]).weights(params, source())
    assert list(shaped) == list(params)
    assert [name for name in params if shaped[name] is not params[name]] == ["fc2.weight"]


@pytest.mark.parametrize("name", ["qat", "apqn", "mqat"])
def test_deployed_is_the_float_model_and_there_are_no_hooks(name):
    params, net = weights_of_a_net(), nn.Linear(2, 2)
    transform = made(params, transform=name, bits=[3] if name != "qat" else 3)
    assert all(value is params[key] for key, value in transform.deployed(params).items())
    with transform.around(net):
        assert not net._forward_hooks
        assert not net._forward_pre_hooks


@pytest.mark.parametrize(
    "table",
    [
        {"transform": "qat", "bits": 2},
        {"transform": "qat", "bits": 3, "grid": "channel", "range": "lsq"},
        {"transform": "apqn", "bits": 3},
        {"transform": "mqat", "bits": [2, 3, 8]},
    ],
)
def test_training_at_rate_0_leaves_the_master_weights_bit_identical(table):
    """Trap 5: a quantiser that writes into the parameters it is given would put them on its grid."""
    net = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))
    params = dict(net.named_parameters())
    draw = source()
    for weight in params.values():
        nn.init.normal_(weight, generator=draw)
    before = {name: weight.detach().clone() for name, weight in params.items()}
    transform, x = made(params, **table), torch.randn(5, 8, generator=draw)
    for _ in range(3):
        loss = functional_call(net, transform.weights(params, draw), (x,)).square().sum()
        gradients = torch.autograd.grad(loss, list(params.values()))
        with torch.no_grad():
            for weight, gradient in zip(params.values(), gradients, strict=True):
                weight.sub_(gradient, alpha=0.0)
    assert all(torch.equal(params[name].detach(), before[name]) for name in before)
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_the_gradient_is_that_of_the_net_with_placed_weights():
    net = nn.Linear(6, 4)
    draw = source()
    for weight in net.parameters():
        nn.init.normal_(weight, generator=draw)
    params, x = dict(net.named_parameters()), torch.randn(5, 6, generator=draw)
    shaped = made(params, transform="qat", bits=3).weights(params, draw)
    found = torch.autograd.grad(functional_call(net, shaped, (x,)).square().sum(), list(params.values()))
    placed = nn.Linear(6, 4)
    with torch.no_grad():
        placed.weight.copy_(place(net.weight, step_of(net.weight, 3), 3))
        placed.bias.copy_(net.bias)
    expected = torch.autograd.grad(placed(x).square().sum(), list(placed.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_width_holds_for_all_tensors_of_a_step_and_each_is_as_likely():
    params, widths, draw = weights_of_a_net(), [3, 4, 8, 32], source()
    transform = made(params, transform="mqat", bits=widths)
    seen = Counter()
    for _ in range(60):
        shaped = transform.weights(params, draw)
        one = {
            32 if shaped[name] is params[name] else width_of(shaped[name].detach(), params[name].detach(), widths[:3])
            for name in transform.names
        }
        assert len(one) == 1
        seen.update(one)
    assert set(seen) == set(widths)


def test_draws_are_uniform():
    draw = source()
    counts = Counter(drawn((3, 4, 8, 32), draw) for _ in range(4000))
    assert set(counts) == {3, 4, 8, 32}
    assert all(abs(count - 1000) < 5 * (4000 * 3 / 16) ** 0.5 for count in counts.values())


def steps(transform, params, seed, count=12):
    """Returns the widths of every tensor over some steps."""
    draw = source(seed)
    shaped = [transform.weights(params, draw) for _ in range(count)]
    return [
        tuple(width_of(one[n].detach(), params[n].detach(), transform.settings.bits) for n in transform.names)
        for one in shaped
    ]


@pytest.mark.parametrize("draw", ["step", "layer", "round"])
def test_the_same_seed_draws_the_same_widths_and_another_one_others(draw):
    params = weights_of_a_net()
    transform = made(params, transform="mqat", bits=[2, 3, 4, 5, 6, 7, 8], draw=draw)
    runs = [steps(transform, params, seed) for seed in (1, 1, 2, 3)]
    assert runs[0] == runs[1]
    assert len({tuple(run) for run in runs[1:]}) > 1


def test_how_long_a_width_holds():
    params = weights_of_a_net()
    found = {
        draw: steps(made(params, transform="mqat", bits=[3, 4, 8], draw=draw), params, 1)
        for draw in ("step", "layer", "round")
    }
    assert all(len(set(widths)) == 1 for widths in found["step"])
    assert len(set(found["step"])) > 1
    assert any(len(set(widths)) > 1 for widths in found["layer"])
    assert len({width for widths in found["round"] for width in widths}) == 1


def test_zero_weights_stay_zero_in_training():
    params = {"w": torch.zeros(4, 5, requires_grad=True)}
    for table in ({"transform": "qat", "range": "lsq"}, {"transform": "mqat"}, {"transform": "apqn"}):
        shaped = made(params, **table).weights(params, source())["w"]
        (gradient,) = torch.autograd.grad(shaped.sum(), params["w"])
        assert shaped.detach().abs().max() < 1e-30
        assert torch.isfinite(gradient).all()
