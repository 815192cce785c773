"""Where a method's knob says "nothing", the federation ends with the bytes of plain averaging."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coordinator.home import open_home
from coordinator.recipe import load_recipe
from models.archs import spec_of
from models.data import load as load_data
from models.init import initial
from models.splits import Share
from tests.memory_fleet import MemoryFleet
from wire.bits import Bits
from wire.params import params_digest
from wire.spec import canonical_json

PLAIN = ['model="mlp-16-8"', "rounds=2", "devices.goal=2", "split.examples=200", "train.epochs=1"]
NOTHING = {
    "kure of strength 0": ['train.penalty={penalty="kure",strength=0.0}'],
    "mqat at 32 bits": ['train.transforms=[{transform="mqat",bits=[32]}]'],
    "apqn at 32 bits": ['train.transforms=[{transform="apqn",bits=32}]'],
    "qat at 32 bits": ['train.transforms=[{transform="qat",bits=32}]'],
    "all of them": [
        'train.transforms=[{transform="mqat",bits=[32]}]',
        'train.penalty={penalty="kure",strength=0.0}',
    ],
    "top-k that keeps everything": ['uplink.stages=[{stage="topk",share=1.0}]'],
    "tensor by tensor": ['uplink.scope="tensor"', 'uplink.stages=[{stage="topk",share=0.1}]', 'uplink.whole=["*"]'],
    "feedback with nothing left out": ['uplink.stages=[{stage="topk",share=1.0}]', "uplink.feedback=true"],
    "a final rate that is the rate": ["train.final_rate=0.1"],
    "other evaluation": ["evaluate.bits=[8,2]", "evaluate.every=2"],
}
SOMETHING = {
    "kure": ['train.penalty={penalty="kure",strength=1.0}'],
    "mqat": ['train.transforms=[{transform="mqat",bits=[3,4]}]'],
    "apqn": ['train.transforms=[{transform="apqn",bits=3}]'],
    "qat": ['train.transforms=[{transform="qat",bits=3}]'],
    "swat": ['train.transforms=[{transform="swat",sparsity=0.9}]'],
    "activations": ['train.transforms=[{transform="activations",bits=4}]'],
    "top-k": ['uplink.stages=[{stage="topk",share=0.1}]'],
    "top-k with feedback": ['uplink.stages=[{stage="topk",share=0.1}]', "uplink.feedback=true"],
    "signs with feedback": ['uplink.stages=[{stage="signs"}]', "uplink.feedback=true"],
    "signs both ways": ['uplink.stages=[{stage="signs"}]', 'downlink.stages=[{stage="signs"}]', "uplink.feedback=true"],
    "frozen": ['freeze=["largest"]'],
    "a final rate": ["train.final_rate=0.01"],
    "clipping": ["privacy.clip=0.1"],
    "noise": ["privacy.clip=0.1", "privacy.noise=1.0"],
    "trees of noise": ["privacy.clip=0.1", "privacy.noise=1.0", 'privacy.mechanism="tree"'],
    "adapting levels": [
        'uplink.stages=[{stage="levels",levels=1}]', 'schedule={rule="ascending",start=4}', "train.rate=0.3"
    ],
}  # fmt: skip
MODELS: dict[str, str] = {}


def traffic(folder, recipe):
    """Returns what each device sent and fetched in each round: the bytes of its update but for its metrics, and those
    of what it fetched."""
    with open_home(folder / "home") as home:
        fleet = MemoryFleet(home, home.new_run(recipe), folder, recipe)
        fleet.finish()
        taken = [line for line in home.database.ledger(fleet.run) if line["event"] == "accepted"]
    return {
        (line["round"], line["device"]): (
            line["bytes"] - len(canonical_json(line["metrics"])), line["metrics"]["down_bytes"]
        ) for line in taken
    }  # fmt: skip


@pytest.mark.parametrize("name", ["kure", "apqn", "qat", "mqat"])
def test_who_prepares_for_rounding_sends_and_fetches_what_plain_averaging_does(tmp_path, name):
    """To the byte: the metrics alone are left out, for a time or a loss may have a digit more."""
    settings = ["rounds=3", "devices.goal=2", "split.examples=200"]
    own = load_recipe(name, settings)
    plain = load_recipe(name, [*settings, "train.transforms=[]", "train.penalty={}"])
    assert own.train != plain.train
    found = traffic(tmp_path / "own", own)
    assert found == traffic(tmp_path / "plain", plain)
    assert len(found) == 3 * 2


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Returns a function that gives the final model of plain averaging with some settings."""

    def of(*settings):
        key = " ".join(settings)
        if key not in MODELS:
            folder = tmp_path_factory.mktemp("run")
            recipe = load_recipe("fedavg", [*PLAIN, *settings])
            with open_home(folder / "home") as home:
                MODELS[key] = MemoryFleet(home, home.new_run(recipe), folder, recipe).finish()
        return MODELS[key]

    return of


@pytest.mark.parametrize("case", NOTHING)
def test_nothing_is_plain_averaging(model, case):
    assert model(*NOTHING[case]) == model()


def sgd(model, data, train, key):
    """Returns a device's change, by torch's own net, optimiser and loss."""
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 8),
                              torch.nn.ReLU(), torch.nn.Linear(8, 10))  # fmt: skip
    for weight, value in zip(net.parameters(), model, strict=True):
        weight.data = torch.tensor(value)
    optimiser = torch.optim.SGD(net.parameters(), train.rate, train.momentum)
    for epoch in range(train.epochs):
        order = Bits.of(*key, "order", epoch).permutation(len(data))
        for at in range(0, len(data), train.batch):
            picked = order[at : at + train.batch]
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(
                net(torch.tensor(data.x[picked])), torch.tensor(data.y[picked])
            ).backward()
            optimiser.step()
    return [weight.detach().numpy() - value for weight, value in zip(net.parameters(), model, strict=True)]


def fedavg(recipe):
    """Returns the digest after the rounds of w <- w + sum n_k (w_k - w) / sum n_k, added in double precision."""
    first = initial(spec_of("mlp-16-8", (1, 8, 8), 10, 1))
    model, split = list(first.values()), recipe.split
    parts = [load_data("digits", "train", Share(split.rule, 2, at, split.seed, split.examples)) for at in range(2)]
    counts = [len(part) for part in parts]
    assert counts[0] != counts[1]
    for number in range(recipe.rounds):
        changes = [sgd(model, part, recipe.train, (1, number, f"dev-{at}")) for at, part in enumerate(parts)]
        sums = [
            sum(count * one.astype(float) for count, one in zip(counts, of, strict=True))
            for of in zip(*changes, strict=True)
        ]
        model = [value + (total / sum(counts)).astype(np.float32) for value, total in zip(model, sums, strict=True)]
    return params_digest(dict(zip(first, model, strict=True)))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_nothing_frozen_is_the_average_by_hand(model, momentum):
    settings = ["freeze=[]", "split.rule=dirichlet:0.5", f"train.momentum={momentum}", "rounds=3", "train.epochs=2"]
    found = model(*settings)  # before the other one: it sets the number of torch's threads
    assert found == fedavg(load_recipe("fedavg", [*PLAIN, *settings]))


def test_each_method_is_really_there(model):
    """No two of them are the same, so a setting that was not passed on would show."""
    found = {case: model(*settings) for case, settings in SOMETHING.items()}
    assert len({*found.values(), model()}) == len(found) + 1
