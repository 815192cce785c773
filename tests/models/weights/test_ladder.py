"""Accuracy at every bit-width, against the same thing by hand; the net stays as it is."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from models.archs import spec_of
from models.data import load as load_data
from models.init import initial
from models.measure import measure
from models.nets import build, load
from models.weights.grids import place, step_of
from models.weights.ladder import accuracy_by_bits, assess
from wire.bits import Bits


@pytest.fixture(scope="module")
def trained():
    """Returns a small net that knows the digits, one of its tensors frozen."""
    spec = spec_of("mlp-24-24", (1, 8, 8), 10, 1, ["fc2.weight"])
    net, data, bits = build(spec), load_data("digits"), Bits.of("ladder")
    load(net, initial(spec))
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    for _ in range(4):
        order = bits.permutation(len(data))
        for start in range(0, len(data), 16):
            rows = order[start : start + 16]
            loss = cross_entropy(net(torch.from_numpy(data.x[rows])), torch.from_numpy(data.y[rows]))
            with torch.no_grad():
                for weight, slope in zip(weights, torch.autograd.grad(loss, weights), strict=True):
                    weight.sub_(slope, alpha=0.2)
    return net, load_data("digits", "test")


def by_hand(net, data, bits, channel, rule, left=()):
    """Returns the accuracy after overwriting the weights, which are put back."""
    kept = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if weight.dim() >= 2 and name not in left:
                weight.copy_(place(weight, step_of(weight, bits, channel, rule), bits))
        found = measure(net, data)["accuracy"]
        for name, weight in net.named_parameters():
            weight.copy_(kept[name])
    return found


@pytest.mark.parametrize(("channel", "rule"), [(False, "minmax"), (True, "minmax"), (False, "lsq")])
def test_every_rung_is_that_of_the_overwritten_net(trained, channel, rule):
    net, data = trained
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    found = accuracy_by_bits(net, dict(net.named_parameters()), data, [32, 8, 3, 2], channel=channel, rule=rule)
    assert list(found) == ["32", "8", "3", "2"]
    assert found["32"] == measure(net, data)["accuracy"] > 0.85
    assert abs(found["8"] - found["32"]) <= 0.01
    assert found["2"] < found["32"]
    for bits in (8, 3, 2):
        assert found[str(bits)] == by_hand(net, data, bits, channel, rule)
    assert all(torch.equal(weight, before[name]) for name, weight in net.named_parameters())


def test_what_is_skipped_stays_float_and_given_weights_stand_in(trained):
    net, data = trained
    found = accuracy_by_bits(net, {}, data, [2], skip=["first", "last"])
    assert found["2"] == by_hand(net, data, 2, False, "minmax", ("fc1.weight", "out.weight"))
    assert found["2"] != accuracy_by_bits(net, {}, data, [2])["2"]
    blank = {name: torch.zeros_like(weight) for name, weight in net.named_parameters()}
    assert accuracy_by_bits(net, blank, data, [32])["32"] == pytest.approx((data.y == 0).mean())


def test_a_plain_net_is_measured_and_no_more(trained):
    net, data = trained
    assert assess(net, data) == measure(net, data)
    assert assess(net, data, [{"transform": "mqat"}, {"transform": "activations"}]) == measure(net, data)


def test_a_masked_net_is_measured_under_its_masks(trained):
    net, data = trained
    found = assess(net, data, [{"transform": "swat", "sparsity": 0.95, "skip": []}], [32, 8], True)
    assert found["accuracy_unmasked"] == measure(net, data)["accuracy"]
    assert found["accuracy"] < found["accuracy_unmasked"]
    assert found["accuracy_by_bits"]["32"] == found["accuracy"]
    assert found["accuracy_by_bits"]["8"] == pytest.approx(found["accuracy"], abs=0.03)
