"""A pretrained trunk goes down once, is kept, and stands under training and measuring alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coordinator.home import open_home
from coordinator.learning.evaluator import evaluate
from coordinator.recipe import load_recipe
from edge_agent.training import trainer
from models.data import load as load_data
from models.init import frozen
from models.measure import measure
from models.nets import build, load
from models.trunk import read_arrays
from tests.end_to_end.delays import noted, published, turn_until
from tests.memory_fleet import MemoryFleet
from wire.errors import DataError
from wire.messages.plan import decode_plan

SETTINGS = ['model="mlp-16-8"', "rounds=3", "devices.goal=2", "split.examples=200", 'freeze=["fc1.*"]']


def pretrained(recipe_spec, scale=1.5):
    """Returns other values for the frozen tensors than the seed gives."""
    return {name: (values * np.float32(scale)).astype(np.float32) for name, values in frozen(recipe_spec).items()}


@pytest.fixture
def meet(tmp_path):
    """Returns a function that brings together two devices and a coordinator with a trunk."""
    with open_home(tmp_path / "home") as home:

        def make(*settings, scale=1.5):
            plain = load_recipe("fedavg", [*SETTINGS, *settings])
            probe = MemoryFleet(home, home.new_run(plain), tmp_path / "probe", plain)
            spec = probe.federation.state.planner.spec
            path = tmp_path / "trunk.npz"
            np.savez(path, other=np.zeros(3), **pretrained(spec, scale))
            recipe = load_recipe("fedavg", [*SETTINGS, *settings, f'trunk="{path}"'])
            return MemoryFleet(home, home.new_run(recipe), tmp_path / "fleet", recipe)

        yield make


def plan_of(fleet, number):
    row = fleet.home.database.row("SELECT plan FROM rounds WHERE run = ? AND round = ?", fleet.run, number)
    return decode_plan(row["plan"])


def test_it_goes_down_once_and_is_kept(meet):
    fleet = meet()
    fleet.finish()
    plan = plan_of(fleet, 0)
    assert plan.trunk == plan_of(fleet, 2).trunk
    assert plan.trunk_bytes == 4 * (64 * 16 + 16) + 12 + 20 + 14 + 4
    for line in noted(fleet, "accepted"):
        asked = plan_of(fleet, line["round"])
        first = asked.spec_bytes + asked.trunk_bytes if line["round"] == 0 else 0
        assert line["metrics"]["down_bytes"] == first + sum(ref.size for ref in asked.blobs)
    for agent in fleet.agents:
        assert (agent.store / plan.trunk).stat().st_size == plan.trunk_bytes
    assert not noted(fleet, "declined")


def test_training_uses_it(meet, monkeypatch):
    seen = []
    fit = trainer.fit

    def noting(*of, still=None, **more):
        seen.append(still)
        return fit(*of, still=still, **more)

    monkeypatch.setattr(trainer, "fit", noting)
    fleet = meet()
    fleet.finish()
    wanted = pretrained(fleet.federation.state.planner.spec)
    assert len(seen) == 6
    for still in seen:
        assert {name: values.tobytes() for name, values in still.items()} == {n: v.tobytes() for n, v in wanted.items()}


def test_measuring_uses_it(meet):
    fleet = meet()
    fleet.finish()
    planner = fleet.federation.state.planner
    question = planner.question(2)
    data, found = load_data("digits", "test"), []
    for still in (pretrained(planner.spec), frozen(planner.spec)):
        net = build(planner.spec, still)
        load(net, planner.state.model)
        found.append(measure(net, data))
    assert evaluate(question)["loss"] == pytest.approx(found[0]["loss"], rel=1e-6)
    assert evaluate(replace(question, trunk=""))["loss"] == pytest.approx(found[1]["loss"], rel=1e-6)
    assert found[0]["loss"] != found[1]["loss"]
    assert noted(fleet, "evaluated")[-1]["accuracy"] == found[0]["accuracy"]


def test_another_trunk_gives_another_model_and_the_seed_s_own_the_seed_s(meet, tmp_path):
    model = meet(scale=1.0).finish()
    recipe = load_recipe("fedavg", SETTINGS)
    with open_home(tmp_path / "plain") as home:
        assert MemoryFleet(home, home.new_run(recipe), tmp_path / "plain", recipe).finish() == model


def test_a_run_goes_on_without_the_file(meet, tmp_path):
    fleet = meet()
    turn_until(fleet, lambda: 0 in published(fleet))
    trunk = fleet.federation.state.planner.trunk
    (tmp_path / "trunk.npz").unlink()
    fleet.federation.state.transport.close()
    fleet.federation = fleet.coordinator()
    assert fleet.federation.state.planner.trunk == trunk
    fleet.finish()
    assert plan_of(fleet, 2).trunk == trunk
    assert not noted(fleet, "declined")


def test_a_device_whose_trunk_was_torn_fetches_it_again(meet):
    fleet = meet()
    turn_until(fleet, lambda: 0 in published(fleet) and not any(agent.uploads for agent in fleet.agents))
    trunk = fleet.federation.state.planner.trunk
    path = fleet.agents[0].store / trunk
    path.write_bytes(path.read_bytes()[:-50] + bytes(50))
    fleet.finish()
    again = [line["metrics"]["down_bytes"] for line in noted(fleet, "accepted", device="dev-0") if line["round"] > 0]
    assert sum(size > plan_of(fleet, 1).trunk_bytes for size in again) == 1
    assert not noted(fleet, "declined")


ARRAYS = {"fc1.weight": np.ones((16, 64)), "fc1.bias": np.ones(16)}
WRONG = {
    "a tensor is missing": {"fc1.weight": ARRAYS["fc1.weight"]},
    "another shape": {**ARRAYS, "fc1.bias": np.ones(17)},
    "transposed": {**ARRAYS, "fc1.weight": np.ones((64, 16))},
    "not finite": {**ARRAYS, "fc1.bias": np.full(16, np.nan)},
    "too large for float32": {**ARRAYS, "fc1.bias": np.full(16, 1e39)},
    "text": {**ARRAYS, "fc1.bias": np.array(["a"] * 16)},
    "objects": {**ARRAYS, "fc1.bias": np.array([{}] * 16, dtype=object)},
    "complex": {**ARRAYS, "fc1.bias": np.ones(16) * 1j},
}


@pytest.mark.parametrize("case", [*WRONG, "no file", "no archive", "empty", "torn", "one array"])
def test_a_wrong_file_is_refused_before_anything_is_sent(tmp_path, case):
    path = tmp_path / "trunk.npz"
    if case in WRONG:
        np.savez(path, **WRONG[case])
    elif case == "torn":
        np.savez_compressed(path, **ARRAYS)
        path.write_bytes(path.read_bytes()[:-40])
    elif case == "one array":
        np.save(path.with_suffix(".npy"), ARRAYS["fc1.bias"])
        path.with_suffix(".npy").rename(path)
    elif case != "no file":
        path.write_bytes(b"PK" * (case == "no archive"))
    recipe = load_recipe("fedavg", [*SETTINGS, f'trunk="{path}"'])
    with open_home(tmp_path / "home") as home:
        run = home.new_run(recipe)
        with pytest.raises(DataError, match=r"trunk .*trunk\.npz"):
            MemoryFleet(home, run, tmp_path, recipe)
        np.savez(path, **ARRAYS)
        MemoryFleet(home, run, tmp_path, recipe).finish()


def test_other_tensors_in_the_file_are_left_alone(tmp_path):
    np.savez(tmp_path / "t.npz", more=np.array([{}], dtype=object), **ARRAYS)
    spec_path = tmp_path / "t.npz"
    recipe = load_recipe("fedavg", [*SETTINGS, f'trunk="{spec_path}"'])
    with open_home(tmp_path / "home") as home:
        planner = MemoryFleet(home, home.new_run(recipe), tmp_path, recipe).federation.state.planner
    assert set(read_arrays(spec_path, planner.spec.frozen)) == set(ARRAYS)
