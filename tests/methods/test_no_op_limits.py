"""Where a method's knob says "nothing", the federation ends with the bytes of plain averaging."""

from __future__ import annotations

import pytest

from coordinator.home import open_home
from coordinator.recipe import load_recipe
from tests.memory_fleet import MemoryFleet

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


def test_each_method_is_really_there(model):
    """No two of them are the same, so a setting that was not passed on would show."""
    found = {case: model(*settings) for case, settings in SOMETHING.items()}
    assert len({*found.values(), model()}) == len(found) + 1
