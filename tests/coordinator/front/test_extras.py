"""What a ledger tells of each method, from runs of a few small rounds; a figure that no method has is not there."""

from __future__ import annotations

import math
from statistics import fmean

import pytest

from coordinator.front.extras import method_figures
from coordinator.front.report import figures_of
from coordinator.home import open_home
from coordinator.learning.epsilon import epsilon
from coordinator.recipe import load_recipe
from tests.memory_fleet import MemoryFleet

SMALL = ['model="mlp-8"', "rounds=3", "devices.goal=3", "split.examples=150", "train.epochs=1"]
LOCAL = ("split.rule=iid", "split.examples=300", "personal.warm_rounds=1")
KINDS = ("accuracy_personal", "accuracy_local", "accuracy_global")


def run(folder, name, *settings):
    """Returns the ledger of a run."""
    recipe = load_recipe(name, [*SMALL, *settings])
    with open_home(folder / "home") as home:
        fleet = MemoryFleet(home, home.new_run(recipe), folder, recipe)
        fleet.finish()
        return [dict(line) for line in home.database.ledger(fleet.run)], recipe


def figures(folder, name, *settings):
    ledger, _ = run(folder, name, *settings)
    return method_figures(ledger[0], ledger), ledger


def test_plain_averaging_has_none(tmp_path):
    assert figures(tmp_path, "fedavg")[0] == {}


def test_accuracy_at_each_bit_width_is_that_of_the_last_measured_round(tmp_path):
    found, ledger = figures(tmp_path, "fedavg", "evaluate.bits=[8,2]", "evaluate.every=2")
    measured = [line for line in ledger if "accuracy_by_bits" in line]
    assert [line["round"] for line in measured] == [1, 2]
    assert found == {"accuracy_by_bits": measured[-1]["accuracy_by_bits"]}
    assert set(found["accuracy_by_bits"]) == {"8", "2"}


def test_the_levels_of_every_round(tmp_path):
    found, ledger = figures(tmp_path, "adaquantfl", "train.rate=1.0")
    assert len(found["levels_by_round"]) == 3
    assert found["levels_by_round"][0] == 2
    told = {line["round"]: line["metrics"]["loss_before"] for line in ledger if line["event"] == "accepted"}
    assert told[0] != told[2]


def test_the_levels_follow_the_losses_that_the_ledger_holds(tmp_path):
    found, ledger = figures(tmp_path, "adaquantfl", "train.rate=1.0", "train.epochs=4", "rounds=5")
    losses = []
    for number in range(5):
        told = [line for line in ledger if line["event"] == "accepted" and line["round"] == number]
        total = math.fsum(line["examples"] for line in told)
        losses.append(math.fsum(line["metrics"]["loss_before"] * line["examples"] for line in told) / total)
    wanted = [2, *(math.ceil(2 * math.sqrt(losses[0] / loss)) for loss in losses[:-1])]
    assert found["levels_by_round"] == wanted
    assert wanted[-1] > 2


@pytest.mark.parametrize("mechanism", ["gaussian", "tree"])
def test_privacy_spent_by_who_took_part(tmp_path, mechanism):
    settings = ("privacy.clip=0.5", "privacy.noise=2.0", f"privacy.mechanism={mechanism}")
    ledger, recipe = run(tmp_path, "fedavg", *settings)
    found = method_figures(ledger[0], ledger)["privacy"]
    wanted = epsilon(recipe.privacy, 3, 3, [{1, 2, 3}] * 3)
    assert found["epsilon"] == wanted.epsilon > 0
    assert (found["delta"], found["assumptions"]) == (1e-5, list(wanted.assumptions))
    assert found["warning"]


def test_fewer_rounds_spend_less_and_half_a_ledger_is_no_more(tmp_path):
    ledger, recipe = run(tmp_path, "fedavg", "privacy.clip=0.5", "privacy.noise=2.0")
    ends = [at for at, line in enumerate(ledger) if line["event"] == "phase" and line["phase"] == "published"]
    spent = [method_figures(ledger[0], ledger[: end + 1])["privacy"]["epsilon"] for end in ends]
    assert spent == sorted(set(spent))
    assert spent[0] == epsilon(recipe.privacy, 1, 3, [{1}] * 3).epsilon


def test_without_noise_there_is_no_epsilon(tmp_path):
    found = figures(tmp_path, "fedavg", "privacy.clip=0.5")[0]["privacy"]
    assert found["epsilon"] is None
    assert found.get("warning") or found.get("reason")


def test_before_the_first_round_nothing_is_known(tmp_path):
    ledger, _ = run(tmp_path, "fedavg", "privacy.clip=0.5", "privacy.noise=2.0")
    found = method_figures(ledger[0], ledger[:1])["privacy"]
    assert found["epsilon"] in (None, 0.0)
    figures_of(ledger[:1])


def test_personal_accuracies_by_device_and_their_means(tmp_path):
    mix = "personal.mix=[{centres=0},{centres=2},{centres=4,arch='mlp-6'}]"
    found, ledger = figures(tmp_path, "quped", *LOCAL, mix, 'model="mlp-8-8"')
    personal = found["personal"]
    assert list(personal["devices"]) == ["dev-0", "dev-1", "dev-2"]
    newest = {line["device"]: line["metrics"] for line in ledger if line["event"] == "accepted"}
    for kind in KINDS:
        values = [newest[device][kind] for device in personal["devices"]]
        assert [personal["devices"][device][kind] for device in personal["devices"]] == values
        assert personal["mean"][kind] == pytest.approx(fmean(values), abs=1e-6)
        assert all(0 <= value <= 1 for value in values)
    sizes = [device["personal_bytes"] for device in personal["devices"].values()]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("lie", [1e308, -1e308, "much", 2.0])
def test_a_device_that_lies_about_its_accuracy_stops_no_report(tmp_path, lie):
    found, ledger = figures(tmp_path, "quped", *LOCAL, "rounds=1")
    for line in ledger:
        if line["event"] == "accepted" and line["device"] != "dev-1":
            line["metrics"] = {**line["metrics"], "accuracy_personal": lie}
    mean = method_figures(ledger[0], ledger)["personal"]["mean"]
    assert "accuracy_personal" not in mean
    assert mean["accuracy_local"] == found["personal"]["mean"]["accuracy_local"]
