"""Nets: the same tensors as the spec says, for every architecture and shape; parameters in and out."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from models.archs import Arch, spec_of, tensors_of
from models.init import frozen, initial
from models.nets import build, dump, listed, load
from wire.errors import ConfigError

CASES = [
    ("mlp", (1, 8, 8), 10),
    ("mlp-24-24-24", (64,), 10),
    ("cnn", (1, 8, 8), 10),
    ("cnn-4-8-8", (3, 33, 20), 5),
    ("leaf", (1, 28, 28), 10),
    ("leaf", (1, 28, 28), 62),
    ("leaf", (3, 32, 32), 10),
    ("resnet8", (1, 28, 28), 10),
    ("resnet8", (1, 8, 8), 10),
    ("resnet8-8", (3, 32, 32), 100),
    ("resnet18-8", (1, 8, 8), 10),
    ("resnet18-16", (1, 28, 28), 10),
    ("resnet18", (3, 32, 32), 10),
    ("cnn1d", (6, 100), 7),
    ("cnn1d-8", (1, 33), 2),
    ("mobile", (1, 28, 28), 10),
    ("mobile-8-16-8", (3, 9, 5), 4),
    ("mobile-8", (1, 1, 1), 2),
]


@pytest.mark.parametrize(("arch", "shape", "outputs"), CASES)
def test_spec_and_net_agree(arch, shape, outputs):
    spec = spec_of(arch, shape, outputs, 3)
    net = build(spec)
    own = [(name, tuple(parameter.shape)) for name, parameter in net.named_parameters()]
    assert own == [(tensor.name, tensor.shape) for tensor in spec.trainable]
    load(net, initial(spec))
    answer = net(torch.ones(2, *shape))
    assert answer.shape == (2, outputs)
    assert torch.isfinite(answer).all()


@pytest.mark.parametrize(("arch", "shape", "outputs"), CASES)
def test_the_rule_for_foreign_nets_gives_the_built_in_tensors(arch, shape, outputs):
    assert listed(arch, shape, outputs) == tensors_of(arch, shape, outputs)


def test_mobile_convolves_by_channel_and_halves_the_sides():
    net = build(spec_of("mobile", (3, 28, 28), 10, 1))
    assert [(m.groups, m.stride, m.kernel_size) for m in net.modules() if isinstance(m, nn.Conv2d)] == [
        (1, (1, 1), (3, 3)),
        (16, (2, 2), (3, 3)),
        (1, (1, 1), (1, 1)),
        (16, (2, 2), (3, 3)),
        (1, (1, 1), (1, 1)),
    ]
    assert net[:-3](torch.zeros(1, 3, 28, 28)).shape == (1, 32, 7, 7)


def test_what_is_not_loaded_is_nan_and_frozen_is_in_place():
    spec = spec_of("mlp", (4,), 2, 1, ("fc1.*",))
    net = build(spec)
    fixed = dump(net, ["fc1.weight", "fc1.bias"])
    assert {name: fixed[name].tolist() for name in fixed} == {n: v.tolist() for n, v in frozen(spec).items()}
    assert np.isnan(dump(net, ["out.weight"])["out.weight"]).all()
    assert {name for name, parameter in net.named_parameters() if parameter.requires_grad} == {"out.weight", "out.bias"}


def test_dump_undoes_load_and_copies():
    spec = spec_of("cnn", (1, 8, 8), 10, 1)
    net, params = build(spec), initial(spec)
    for value in params.values():
        value.flags.writeable = False
    load(net, params)
    back = dump(net, params)
    assert list(back) == list(params)
    assert all(np.array_equal(back[name], params[name]) and back[name].dtype == np.float32 for name in params)
    back["out.bias"] += 1
    assert not dump(net, ["out.bias"])["out.bias"].any()


def test_building_leaves_torchs_random_state_alone():
    before = torch.get_rng_state()
    build(spec_of("resnet8", (1, 8, 8), 10, 1))
    assert torch.equal(before, torch.get_rng_state())


def test_a_spec_that_is_not_the_architectures_is_refused():
    spec = spec_of("mlp", (4,), 2, 1)
    huge = dataclasses.replace(spec.trainable[0], shape=(10**6, 10**6))
    for wrong in (
        dataclasses.replace(spec, trainable=spec.trainable[:-1]),
        dataclasses.replace(spec, trainable=spec.trainable[::-1]),
        dataclasses.replace(spec, trainable=(huge, *spec.trainable[1:])),
        dataclasses.replace(spec, arch="mlp-65"),
    ):
        with pytest.raises(ConfigError, match="differ"):
            build(wrong)


def test_load_and_dump_refuse_what_is_not_there():
    net = build(spec_of("mlp", (4,), 2, 1))
    for wrong in ({"fc9.bias": np.zeros(2, np.float32)}, {"out.bias": np.zeros(3, np.float32)}):
        with pytest.raises(ConfigError, match="not one of this net"):
            load(net, wrong)
    with pytest.raises(ConfigError, match="fc9"):
        dump(net, ["fc9.bias"])


def test_vector_has_no_net():
    with pytest.raises(ConfigError, match="no net"):
        build(spec_of("vector-5", (1,), 1, 0))


def _small(shape, outputs, args):
    return nn.Sequential(nn.Flatten(), nn.LayerNorm(shape[0]), nn.Linear(shape[0], outputs))


def test_a_foreign_net_lists_itself(offer):
    offer("bitfleet.models", {"small": Arch(build=_small)})
    spec = spec_of("small", (4,), 2, 7)
    assert [(t.name, t.shape, t.fill) for t in spec.trainable] == [
        ("1.weight", (4,), 1.0),
        ("1.bias", (4,), 0.0),
        ("2.weight", (2, 4), 0.0),
        ("2.bias", (2,), 0.0),
    ]
    net = build(spec)
    load(net, initial(spec))
    assert net(torch.ones(3, 4)).shape == (3, 2)


def _tied(shape, outputs, args):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    return net


def test_tied_weights_travel_once(offer):
    offer("bitfleet.models", {"tied": Arch(build=_tied)})
    spec = spec_of("tied", (4,), 4, 0)
    assert [tensor.name for tensor in spec.trainable] == ["0.weight", "0.bias", "1.bias"]
    net = build(spec)
    load(net, initial(spec))
    assert torch.equal(net[0].weight, net[1].weight)


@pytest.mark.parametrize(
    ("maker", "says"),
    [
        (lambda *_: nn.BatchNorm1d(4), "GroupNorm"),
        (lambda *_: nn.Linear(4, 2).double(), "float32"),
        (lambda *_: 3, "builds int"),
        (lambda *_: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_foreign_nets_that_cannot_travel(offer, maker, says):
    offer("bitfleet.models", {"wrong": Arch(build=maker)})
    with pytest.raises(ConfigError, match=says):
        spec_of("wrong", (4,), 2, 0)
