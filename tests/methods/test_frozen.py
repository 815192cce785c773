"""FedPT: what is frozen is never sent, never moves, is the same everywhere, and has no gradient."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from coordinator.home import open_home
from coordinator.learning.checkpoint import ServerState, load_state, save_state
from coordinator.learning.optimiser import server_step
from coordinator.recipe import load_recipe
from coordinator.recipes.sections import Server
from edge_agent.training import trainer
from edge_agent.training.trainer import fit
from models import archs
from models.archs import Arch, spec_of
from models.data import load as load_data
from models.init import frozen, initial
from models.layouts import conv, dense
from models.measure import measure
from models.nets import build, dump, load
from tests.edge_agent.boards import plan
from tests.memory_fleet import MemoryFleet
from wire.errors import ConfigError
from wire.messages.blob import snapshot_blob
from wire.messages.train import TrainSettings
from wire.messages.update import Update, UpdateHeader, encode_update
from wire.params import params_digest
from wire.spec import ModelSpec
from wire.stages.tensors import Codec

SMALL = ['model="mlp-16-8"', "rounds=3", "devices.goal=2", "split.examples=200"]

NET = ((1, 8, 8), 10, 1)


def run(folder, *settings):
    """Returns the fleet after its run, on digits."""
    recipe = load_recipe("fedavg", [*SMALL, *settings])
    with open_home(folder / "home") as home:
        fleet = MemoryFleet(home, home.new_run(recipe), folder, recipe)
        return fleet.finish(), list(home.database.ledger(fleet.run)), fleet.federation.state.planner


def leaf(*freeze):
    return spec_of("leaf", (1, 28, 28), 62, 1, freeze)


@pytest.mark.parametrize(
    ("rule", "frozen_names"),
    [
        (["largest"], {"fc1.weight"}),
        (["fc1.*"], {"fc1.weight", "fc1.bias"}),
        (["fc2.bias"], {"fc2.bias"}),
        (["*.bias"], {"fc1.bias", "fc2.bias", "out.bias"}),
        (["fc?.weight", "out.bias"], {"fc1.weight", "fc2.weight", "out.bias"}),
        (["largest", "fc2*"], {"fc1.weight", "fc2.weight", "fc2.bias"}),
        (["largest", "largest", "fc1.weight"], {"fc1.weight"}),
        ([], set()),
    ],
    ids=str,
)
def test_rules(rule, frozen_names):
    spec = spec_of("mlp-16-8", (1, 8, 8), 10, 1, rule)
    assert {tensor.name for tensor in spec.frozen} == frozen_names
    assert {tensor.name for tensor in (*spec.frozen, *spec.trainable)} == set(initial(spec_of("mlp-16-8", *NET)))
    assert ModelSpec.from_json(spec.to_json()) == spec


def emnist_net(shape, outputs, args):
    """Lists the EMNIST net of the public research code: 3x3 convolutions of 32 and 64 without padding, a pool, 128."""
    return (*conv("conv1", 1, 32, 3, 3), *conv("conv2", 32, 64, 3, 3), *dense("fc1", 64 * 12 * 12, 128),
            *dense("out", 128, outputs))  # fmt: skip


@pytest.mark.parametrize(("freeze", "count", "ratio"), [("fc1.*", 26_814, 45.0), ("fc1.weight", 26_942, 44.8)])
def test_bytes_of_the_net_of_1206590_parameters(monkeypatch, freeze, count, ratio):
    """The near-46 times of the note; the net is none of the built-in ones, which all pad."""
    monkeypatch.setitem(archs._BUILT_IN, "emnist", Arch(tensors=emnist_net))
    full, part = (spec_of("emnist", (1, 28, 28), 62, 1, rule) for rule in ((), (freeze,)))
    assert (full.count, part.count) == (1_206_590, count)
    assert full.count / part.count == pytest.approx(ratio, abs=0.05)
    for size in (update_size, snapshot_size):
        sizes = [size(spec) for spec in (full, part)]
        assert sizes[0] / sizes[1] == pytest.approx(full.count / part.count, rel=0.01)


def test_largest_is_the_first_of_equals():
    spec = spec_of("mlp-8-8-8", (1, 2, 2), 8, 1, ["largest"])
    assert [tensor.name for tensor in spec.frozen] == ["fc2.weight"]


def test_a_rule_that_fits_nothing_or_everything_is_refused():
    with pytest.raises(ConfigError, match="fits no tensor"):
        leaf("dense*")
    with pytest.raises(ConfigError, match="leaves nothing"):
        leaf("*")


def all_frozen():
    """Returns a net of which nothing is trained; no recipe makes one."""
    spec = spec_of("mlp-16-8", (1, 8, 8), 10, 1)
    return replace(spec, trainable=(), frozen=spec.trainable)


def test_everything_frozen_no_parameter_flows_and_nothing_moves():
    spec, data = all_frozen(), load_data("digits", "test")
    found = fit({}, spec, data, TrainSettings("digits", epochs=2, momentum=0.9, decay=0.1), (1, 0, "dev-1"))
    assert found.params == {}
    assert found.metrics["loss_before"] == found.metrics["loss_after"]
    asked = plan(spec)
    header = UpdateHeader("run-1", 0, "dev-1", asked.base, "delta", 10)
    empty = len(encode_update(Update(header, {}), asked, spec))
    assert Codec.of((), asked.stages, asked.scope).encode({}) == b""
    assert empty < 400
    assert len(snapshot_blob({}, spec)[1]) < 400
    model, slots = server_step({}, {}, {}, Server(optimiser="adam"))
    assert (model, slots) == ({}, {"m": {}, "v": {}})


@pytest.mark.parametrize("freeze", ['["largest"]', '["fc1.*","out.weight"]'])
def test_only_what_is_trained_flows_and_is_kept(tmp_path, freeze):
    _, ledger, planner = run(tmp_path, f"freeze={freeze}", "server.optimiser=adam", "server.rate=0.01")
    names = {tensor.name for tensor in planner.spec.trainable}
    state = load_state(planner.checkpoint(2), planner.spec)
    for part in (state.model, state.held, *state.slots.values()):
        assert set(part) == names
    sent = [line["bytes"] for line in ledger if line["event"] == "accepted"]
    whole = 4 * planner.spec.count
    assert all(whole < size < whole + 1200 for size in sent)


@pytest.mark.parametrize(("freeze", "ratio"), [(("fc1.*",), 20.1), (("fc1.*", "conv2.*"), 51.8)])
def test_bytes_fall_as_the_parameters_that_are_trained(freeze, ratio):
    """The 1,690,046 parameters of the EMNIST net, as encoded updates and snapshots."""
    full, part = leaf(), leaf(*freeze)
    assert full.count == 1_690_046
    assert full.count / part.count == pytest.approx(ratio, abs=0.05)
    for size in (update_size, snapshot_size):
        sizes = [size(spec) for spec in (full, part)]
        assert sizes[0] / sizes[1] == pytest.approx(full.count / part.count, rel=0.01)


def update_size(spec):
    asked = plan(spec)
    metrics = {"loss_before": 2.3, "loss_after": 1.1, "seconds": 12.3456, "cpu_s": 12.1234, "down_bytes": 130000}
    header = UpdateHeader("run-1", 0, "dev-1", asked.base, "delta", 418, metrics)
    return len(encode_update(Update(header, initial(spec)), asked, spec))


def snapshot_size(spec):
    return len(snapshot_blob(initial(spec), spec)[1])


def test_largest_of_the_task_s_net_is_28_8_times_fewer():
    full, part = (spec_of("leaf", (1, 28, 28), 10, 1, freeze) for freeze in ((), ("largest",)))
    assert full.count / part.count == pytest.approx(28.8, abs=0.05)
    assert update_size(full) / update_size(part) == pytest.approx(28.8, rel=0.01)


REBUILD = """
import sys
from models.archs import spec_of
from models.init import frozen
from wire.params import params_digest
import torch
torch.set_num_threads(int(sys.argv[1]))
from models.nets import build, dump
spec = spec_of("cnn-4-6", (1, 8, 8), 10, 5, ("conv2.*", "out.weight"))
net = build(spec)
print(params_digest(frozen(spec)), params_digest(dump(net, [t.name for t in spec.frozen])))
"""


def rebuilt(threads):
    words = [sys.executable, "-c", REBUILD, str(threads)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    return set(done.stdout.split())


def test_frozen_values_are_the_same_in_every_process_with_any_number_of_threads():
    here, other = (
        params_digest(frozen(spec_of("cnn-4-6", (1, 8, 8), 10, seed, ("conv2.*", "out.weight")))) for seed in (5, 6)
    )
    found = [rebuilt(threads) for threads in (1, 2)]
    assert found == [{here}, {here}]
    assert other != here


def test_a_frozen_tensor_s_values_do_not_depend_on_what_else_is_frozen():
    for rule in (["fc1.weight"], ["fc1.*"], ["fc1.weight", "out.bias"]):
        spec = spec_of("mlp-16-8", (1, 8, 8), 10, 3, rule)
        other = spec_of("mlp-16-8", (1, 8, 8), 10, 3)
        assert frozen(spec)["fc1.weight"].tobytes() == initial(other)["fc1.weight"].tobytes()


def test_training_leaves_frozen_tensors_without_gradient_or_speed():
    spec = spec_of("mlp-16-8", (1, 8, 8), 10, 1, ["fc1.weight"])
    net = build(spec)
    own = dict(net.named_parameters())
    assert not own["fc1.weight"].requires_grad
    net(torch.zeros(3, 1, 8, 8)).sum().backward()
    assert own["fc1.weight"].grad is None
    assert all(own[tensor.name].grad is not None for tensor in spec.trainable)


def test_frozen_values_are_the_same_after_all_rounds_of_a_fleet(tmp_path, monkeypatch):
    """In every net of every round, after it trained. Decay would shrink them."""
    made = []
    monkeypatch.setattr(trainer, "build", lambda *of: made.append(build(*of)) or made[-1])
    _, _, planner = run(tmp_path, 'freeze=["fc1.*","out.weight"]', "train.decay=0.1", "train.momentum=0.9")
    names = [tensor.name for tensor in planner.spec.frozen]
    assert len(made) == 3 * 2
    assert {params_digest(dump(net, names)) for net in made} == {params_digest(frozen(planner.spec))}


def test_a_frozen_run_learns_and_another_seed_s_frozen_values_do_not_fit(tmp_path):
    """The checkpoint is what is trained and the seed: with a wrong seed the same values are worth nothing.

    Twenty wrong seeds gave 0.04 to 0.15, 0.094 on average, with a deviation of 0.03: chance, for ten classes.
    """
    recipe = ['model="mlp-64"', 'freeze=["fc1.weight"]', "rounds=4", "split.examples=0"]
    _, _, planner = run(tmp_path, *recipe)
    model, data = planner.state.model, load_data("digits", "test")
    found = []
    for seed in range(1, 7):
        net = build(replace(planner.spec, seed=seed))
        load(net, model)
        found.append(measure(net, data)["accuracy"])
    assert found[0] > 0.8
    assert max(found[1:]) < 0.2
    assert np.mean(found[1:]) < 0.15


def test_frozen_zeros_give_chance_where_seeded_values_learn():
    """Nothing of the input passes a layer of zeros: whatever is trained, every answer is the same class."""
    spec, data = spec_of("mlp-32-32", (1, 8, 8), 10, 1, ["fc2.weight"]), load_data("digits", "test")
    still = frozen(spec)
    settings = TrainSettings("digits", epochs=4, batch=16, rate=0.1, momentum=0.9)
    found = []
    for kept in (still, {name: np.zeros_like(values) for name, values in still.items()}):
        net = build(spec, kept)
        load(net, fit(initial(spec), spec, load_data("digits", "train"), settings, (1, 0, "dev-1"), still=kept).params)
        found.append(measure(net, data)["accuracy"])
    assert found[0] > 0.8
    assert any(found[1] == pytest.approx(share) for share in np.bincount(data.y) / len(data))


def test_server_state_of_frozen_tensors_takes_no_room(tmp_path):
    full, part = (spec_of("mlp-64", (1, 8, 8), 10, 1, freeze) for freeze in ((), ("fc1.weight",)))
    for name, spec in (("full", full), ("part", part)):
        values = initial(spec)
        save_state(tmp_path / name, ServerState(values, values, {"m": values, "v": values}), spec)
    sizes = [(tmp_path / name).stat().st_size for name in ("full", "part")]
    assert sizes[0] - sizes[1] == 3 * 4 * (full.count - part.count)
    assert np.isfinite(sizes).all()
