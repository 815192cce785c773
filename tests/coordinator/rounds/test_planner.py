"""From state to plan, and from updates to the next state. Devices are played with the same codecs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from coordinator.recipe import load_recipe
from coordinator.rounds.book import Counted
from coordinator.rounds.phases import Phase, RoundRow
from coordinator.rounds.planner import Planner
from models.init import initial
from tests.coordinator.runs import RUN, echo_recipe
from wire.errors import StateError, WireError
from wire.messages.blob import apply_blob, digest_bytes
from wire.messages.plan import decode_plan, shortest_path
from wire.messages.update import Update, UpdateHeader, encode_update
from wire.params import add, params_digest
from wire.sign import make_key, signer
from wire.spec import ModelSpec, spec_digest

RISING = ('uplink.stages=[{stage="levels",levels=2}]', "schedule.rule=ascending")
FOUR_BITS = 'downlink.stages=[{stage="levels",levels=7}]'


@pytest.fixture
def planner(tmp_path):
    """Returns a function that makes a planner, over one folder, at its start."""

    def make(*settings, folder="run", size=60):
        made = Planner(RUN, echo_recipe(*settings, size=size), tmp_path / folder)
        made.resume(None)
        return made

    return make


def row(planner, number):
    return RoundRow(RUN, number, Phase.SELECTION, planner.base)


def plan(planner, number):
    return decode_plan(planner.plan(row(planner, number), None))


def change(planner, size):
    return {t.name: np.full(t.shape, size, np.float32) for t in planner.spec.trainable}


def journal(planner, asked, device, tensors, examples=1, into=None, **metrics):
    """Puts a device's update into the journal and returns its entry."""
    header = UpdateHeader(asked.run, asked.round, device, asked.base, asked.kind, examples, metrics)
    data = encode_update(Update(header, tensors), asked, planner.spec)
    counted = Counted(device, asked.round, digest_bytes(data), len(data), examples)
    path = planner.journal(asked.round if into is None else into, counted)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return counted


def one_round(planner, number, sizes=(0.5,)):
    """Lets devices add so much to every value, folds, and returns the plan that they had."""
    asked = plan(planner, number)
    counted = [journal(planner, asked, f"dev-{at}", change(planner, size)) for at, size in enumerate(sizes)]
    for _ in planner.fold(row(planner, number), counted, lambda _: asked):
        pass
    return asked


def walked(planner, asked, held):
    """Returns the model that a device which holds `held` comes to with the plan's blobs, and how many it took."""
    models = {params_digest(params): params for params in held}
    path = shortest_path(asked.blobs, list(models), asked.base, ())
    params = models.get(path[0].source) if path else models[asked.base]
    for ref in path:
        params = apply_blob((planner.folder / "blobs" / ref.digest).read_bytes(), ref, planner.spec, params)
    return params, len(path)


def same(one, other):
    return params_digest(one) == params_digest(other)


def test_the_first_plan_starts_from_the_seed(planner):
    asked = plan(planner(), 0)
    spec = planner().spec
    assert asked.base == asked.initial == params_digest(initial(spec))
    assert (asked.blobs, asked.spec, asked.spec_bytes) == ((), spec_digest(spec), len(planner().spec_bytes))
    assert ModelSpec.from_json(json.loads(planner().spec_bytes)) == spec
    assert asked.envelope.disk_bytes == 12 * spec.count


def test_the_plan_says_what_the_recipe_says(tmp_path):
    settings = ["train.rate=0.3", "train.decay=0.01", "devices.deadline_s=77", "uplink.kind=weights", "seed=5"]
    recipe = load_recipe("fedavg", [*settings, "uplink.scope=tensor", 'uplink.stages=[{stage="levels",levels=3}]'])
    made = Planner(RUN, recipe, tmp_path)
    made.resume(None)
    asked = plan(made, 4)
    train = asked.train
    assert (train.task, train.epochs, train.batch, train.rate) == ("digits", 2, 16, 0.3)
    assert (train.momentum, train.decay) == (0.9, 0.01)
    assert (asked.run, asked.round, asked.seed, asked.deadline_s) == (RUN, 4, 5, 77.0)
    assert (asked.kind, asked.scope, asked.stages) == ("weights", "tensor", ({"stage": "levels", "levels": 3},))


def test_plans_are_signed_where_there_is_a_key(planner, tmp_path):
    make_key(tmp_path / "key")
    signed = planner().plan(row(planner(), 0), signer(tmp_path / "key"))
    assert len(signed) == len(planner().plan(row(planner(), 0), None)) + 64
    assert decode_plan(signed) == plan(planner(), 0)


def test_the_mean_of_the_changes_is_the_step(planner):
    one = planner()
    asked = plan(one, 0)
    counted = [
        journal(one, asked, "a", change(one, 1.0), examples=1), journal(one, asked, "b", change(one, 4.0), examples=3)
    ]  # fmt: skip
    for _ in one.fold(row(one, 0), counted, lambda _: asked):
        pass
    for name, value in initial(one.spec).items():
        np.testing.assert_array_equal(one.state.model[name], value + np.float32((1.0 + 3 * 4.0) / 4))


def test_weights_lead_to_their_mean(planner):
    one = planner("uplink.kind=weights")
    asked = plan(one, 0)
    counted = [journal(one, asked, name, change(one, size)) for name, size in (("a", 1.0), ("b", 2.0))]
    for _ in one.fold(row(one, 0), counted, lambda _: asked):
        pass
    for value in one.state.model.values():
        np.testing.assert_allclose(value, 1.5, atol=1e-6)


def test_a_late_update_counts_less_by_the_root_of_its_lateness(planner):
    one = planner("devices.late=fold")
    first = plan(one, 0)
    late = journal(one, first, "late", change(one, 1.0), examples=6, into=3)
    plans = {0: first}
    for number in range(3):
        plans[number] = one_round(one, number, sizes=(0.0,))
    plans[3] = plan(one, 3)
    fresh = journal(one, plans[3], "prompt", change(one, 0.0), examples=6)
    before = one.state.model
    for _ in one.fold(row(one, 3), [late, fresh], plans.get):
        pass
    weight = 6 / (1 + 3) ** 0.5
    for name, value in before.items():
        np.testing.assert_allclose(one.state.model[name] - value, weight / (weight + 6), rtol=1e-5)


def with_losses(planner, number, losses):
    """Folds one update for each (loss, round that it is of)."""
    asked = plan(planner, number)
    plans = {round_: replace(asked, round=round_) for _, round_ in losses}
    counted = [
        journal(planner, plans[round_], f"dev-{at}", change(planner, 0.0), into=number, loss_before=loss)
        for at, (loss, round_) in enumerate(losses)
    ]
    list(planner.fold(row(planner, number), counted, plans.get))


def test_a_late_update_does_not_tell_the_loss_of_this_round_s_model(planner):
    one = planner("devices.late=fold", *RISING)
    with_losses(one, 0, [(4.0, 0)])
    with_losses(one, 1, [(1.0, 1), (100.0, 0)])
    assert one.levels == 4
    with_losses(one, 2, [(0.01, 1)])  # nobody told of this round's
    assert one.levels == 4


def test_levels_are_due_by_the_rounds_that_gave_a_model(planner):
    """Rounds 1 and 3 were abandoned: no model came of them, and no loss."""
    one = planner(*RISING, "schedule.update_every=2")
    found = []
    for number, loss in ((0, 4.0), (2, 1.0), (4, 1.0), (5, 0.25)):
        with_losses(one, number, [(loss, number)])
        found.append(one.levels)
    assert found == [2, 4, 4, 8]


def test_snapshots_lead_every_device_to_the_base(planner):
    one = planner()
    for number in range(3):
        one_round(one, number, sizes=(0.5, 0.25))
        asked = plan(one, number + 1)
        assert asked.base == params_digest(one.state.model)
        (ref,) = asked.blobs
        reached, _ = walked(one, asked, [initial(one.spec)])
        assert ref.source == ""
        assert same(reached, one.state.model)


def test_deltas_lead_each_device_from_what_it_holds_to_exactly_the_base(planner):
    one = planner(FOUR_BITS, size=5000)  # else a snapshot would be shorter than two deltas
    held = [one.state.held]
    for number in range(7):
        one_round(one, number, sizes=(0.5, -0.2))
        asked = plan(one, number + 1)
        for missed, model in enumerate(reversed(held)):
            reached, steps = walked(one, asked, [model])
            assert params_digest(reached) == asked.base
            assert steps == (missed + 1 if missed < 4 else 1), f"missed {missed} rounds"
        assert len(asked.blobs) <= 5
        held.append(one.state.held)


def test_what_rounding_left_out_goes_down_with_the_next_delta(planner):
    one = planner('downlink.stages=[{stage="levels",levels=2}]')
    gaps = []
    for number in range(12):
        one_round(one, number, sizes=(1.0 if number == 0 else 0.0,))
        assert params_digest(one.state.held) == one.base
        gap = max(float(np.abs(one.state.model[n] - one.state.held[n]).max()) for n in one.state.model)
        gaps.append(gap)
    assert gaps[-1] < 0.1


def test_the_devices_model_is_the_base_of_their_change(planner):
    """Deltas are taken against what the devices held, weights too: the server's own model moves by the same step."""
    one, other = planner(FOUR_BITS), planner(FOUR_BITS, "uplink.kind=weights", folder="other")
    for number in range(3):
        moved = {name: np.linspace(-1, 2, value.size, dtype=np.float32) for name, value in one.state.model.items()}
        for made, sent in ((one, moved), (other, add(other.state.held, moved))):
            asked = plan(made, number)
            entry = journal(made, asked, "dev-0", sent)
            list(made.fold(row(made, number), [entry], lambda _, asked=asked: asked))
        assert not same(one.state.model, one.state.held)
        for name, value in one.state.model.items():
            np.testing.assert_allclose(other.state.model[name], value, atol=1e-5)


def test_a_restart_comes_to_the_same_bytes(planner):
    one = planner(FOUR_BITS, "server.optimiser=adam")
    asked = one_round(one, 0, sizes=(0.5, 0.7))
    again = planner(FOUR_BITS, "server.optimiser=adam")
    counted = [
        Counted(path.name.split(".")[0], 0, digest_bytes(path.read_bytes()), 0, 1)
        for path in sorted((one.folder / "journal" / "0").iterdir())
    ]
    for _ in again.fold(row(again, 0), counted, lambda _: asked):
        pass
    assert (again.model_digest, again.base, again.state.blobs) == (one.model_digest, one.base, one.state.blobs)
    resumed = planner(FOUR_BITS, "server.optimiser=adam")
    resumed.resume(0)
    assert resumed.plan(row(resumed, 1), None) == one.plan(row(one, 1), None)


@pytest.mark.parametrize("settings", [(), ("uplink.kind=weights",), ("server.optimiser=adam",), (FOUR_BITS,)])
def test_a_sum_that_is_not_finite_leaves_the_old_state(planner, settings):
    one = planner("server.rate=3.0", *settings)
    before = one.state
    with pytest.raises(WireError, match="finite") as said:
        one_round(one, 0, sizes=(3.4e38, 3.4e38))
    assert said.value.code == "E-NONFINITE"
    assert one.state is before
    assert {path.name for path in (one.folder / "checkpoints").iterdir()} == {"start.state"}
    assert not list((one.folder / "blobs").iterdir())
    one_round(one, 0)
    assert one.state is not before


def test_fold_yields_after_every_update(planner):
    one = planner()
    asked = plan(one, 0)
    counted = [journal(one, asked, f"dev-{at}", change(one, 0.1)) for at in range(5)]
    assert len(list(one.fold(row(one, 0), counted, lambda _: asked))) == 5


@pytest.mark.parametrize("damage", ["bytes", "no plan"])
def test_a_journal_that_is_not_as_accepted_stops_the_run(planner, damage):
    one = planner()
    asked = plan(one, 0)
    entry = journal(one, asked, "dev-0", change(one, 0.1))
    if damage == "bytes":
        path = one.journal(0, entry)
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StateError, match="dev-0's update as accepted"):
        list(one.fold(row(one, 0), [entry], lambda _: None if damage == "no plan" else asked))


def test_tidy_keeps_what_a_restart_needs(planner):
    one = planner()
    for number in range(5):
        one_round(one, number)
        one.tidy(number)
    assert {path.name for path in (one.folder / "checkpoints").iterdir()} == {"start.state", "3.state", "4.state"}
    assert {path.name for path in (one.folder / "journal").iterdir()} == {"3", "4"}
    planner().resume(4)


def test_no_right_update_is_larger_than_the_limit(planner):
    for stages in ("[]", '[{stage="levels",levels=7}]'):
        one = planner(f"uplink.stages={stages}", folder=f"run{len(stages)}")
        asked = plan(one, 0)
        entry = journal(one, asked, "dev-0", change(one, 0.1))
        assert entry.size <= one.most_update_bytes
