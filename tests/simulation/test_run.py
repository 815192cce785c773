from __future__ import annotations

import json
from pathlib import Path

import pytest

from coordinator.front.report import figures_of
from coordinator.home import Home
from coordinator.recipe import recipe_names
from coordinator.state.database import open_database
from simulation.run import Order, left_order, simulate
from tests.simulation.orders import Stopped, echoes, interrupted, of_memory_fleet, order
from tests.small_recipes import small_recipe
from wire.errors import ConfigError


def ledger(figures):
    return [json.loads(line) for line in (Path(figures["run_dir"]) / "ledger.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("recipe", ["fedavg", "fedavg-4bit"])
def test_the_model_is_that_of_live_agents_and_so_are_the_bytes(tmp_path, recipe):
    ordered = order(tmp_path / "one", recipe=recipe)
    found, live = simulate(ordered), of_memory_fleet(ordered, tmp_path / "two")
    assert found["model_digest"] == live["model_digest"]
    assert found["accuracy_by_round"] == live["accuracy_by_round"]
    assert found["rounds"] == 3
    assert found["bytes_down"] == pytest.approx(live["bytes_down"], rel=0.01)  # the fleets' names differ by a letter
    said = 4 * 450  # a live agent tells what it is, once
    assert live["bytes_up"] - said < found["bytes_up"] < live["bytes_up"]


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_ends_with_the_model_of_live_agents(tmp_path, name):
    """These are compared with real processes over mosquitto in tests/end_to_end/test_recipes.py."""
    ordered = Order(small_recipe(name), tmp_path / "one")
    found = simulate(ordered)
    live = of_memory_fleet(ordered, tmp_path / "two", twin=Path(found["run_dir"]))
    assert (found["status"], found["rounds"]) == ("done", 3)
    assert found["model_digest"] == live["model_digest"]


def test_the_ledger_says_that_it_was_a_simulation(tmp_path):
    figures = simulate(echoes(tmp_path, "rounds=2"))
    assert (figures["simulated"], figures["status"], figures["devices"], figures["params"]) == (True, "done", 4, 50)
    database = open_database(tmp_path / "home" / "fleet.sqlite", read_only=True)
    kept = figures_of(database.ledger(figures["run"]))
    database.close()
    assert kept["simulated"] is True
    assert json.loads((tmp_path / "home" / "runs" / figures["run"] / "report.json").read_text()) == kept


def test_some_of_many_devices_take_part(tmp_path):
    figures = simulate(order(tmp_path, "devices.goal=8", devices=20))
    lines = ledger(figures)
    rounds = [{each["device"] for each in line["updates"]} for line in lines if "updates" in line]
    assert [len(each) for each in rounds] == [8, 8, 8]
    assert len(set().union(*rounds)) > 8
    examples = {line["examples"] for line in lines if line["event"] == "accepted"}
    assert examples <= {1437 // 20, 1437 // 20 + 1}
    assert (figures["devices"], figures["clients_per_round"]) == (20, 8)


def test_only_some_examples_are_shared_out(tmp_path):
    figures = simulate(order(tmp_path, "rounds=1", "split.examples=40"))
    assert [line["examples"] for line in ledger(figures) if line["event"] == "accepted"] == [10] * 4


@pytest.mark.parametrize("collecting", [True, False])
@pytest.mark.parametrize("recipe", ["fedavg-4bit", "zerofl", "quped"])
def test_an_interrupted_run_ends_with_the_same_model(tmp_path, recipe, collecting):
    settings = ["devices.goal=3", "split.rule=iid", "split.examples=60", 'task="digits"', 'model="mlp-16-16"']
    settings += ["personal.mix=[]"] if recipe == "quped" else []
    ordered = [order(tmp_path / name, *settings, recipe=recipe) for name in ("one", "two")]
    interrupted(ordered[1], 1, collecting)
    again = left_order(tmp_path / "two")
    assert (again.recipe, again.count) == (ordered[1].recipe, ordered[1].count)
    found = [simulate(each)["model_digest"] for each in (ordered[0], again)]
    assert found[0] == found[1]


def test_a_run_that_goes_on_keeps_what_was_logged_before(tmp_path):
    ordered = echoes(tmp_path, "rounds=2")
    interrupted(ordered, 1)
    before = (tmp_path / "events.log").read_text()
    assert "number=0" in before
    simulate(left_order(tmp_path))
    assert (tmp_path / "events.log").read_text().startswith(before)


def test_the_recipe_with_personal_models_goes_on_when_its_warm_start_ends(tmp_path):
    found = simulate(order(tmp_path, "rounds=12", "split.examples=120", recipe="quped", devices=6))
    assert (found["rounds"], found["status"]) == (12, "done")
    sizes = {line["metrics"].get("personal_bytes") for line in ledger(found) if line["event"] == "accepted"}
    assert len(sizes) > 3, "full precision, 2 bits, 1 bit, and another net"


def test_a_finished_run_is_not_repeated(tmp_path):
    first = simulate(echoes(tmp_path))
    again = simulate(echoes(tmp_path))
    assert again["run"] == first["run"]
    assert again["updates"] == first["updates"]


@pytest.mark.parametrize("at", ["before", "after"])
def test_a_run_that_was_interrupted_as_it_was_entered_goes_on(tmp_path, monkeypatch, at):
    enter = Home.new_run

    def interrupt(*args, **words):
        if at == "after":
            enter(*args, **words)
        raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(Home, "new_run", interrupt)
        with pytest.raises(Stopped):
            simulate(echoes(tmp_path))
    assert left_order(tmp_path).count == 4
    assert simulate(echoes(tmp_path))["status"] == "done"


@pytest.mark.parametrize("other", [{"devices": 9}, {"settings": ["seed=2"]}])
def test_a_folder_takes_one_recipe_only(tmp_path, other):
    interrupted(echoes(tmp_path), 1)
    settings, options = other.get("settings", []), {k: v for k, v in other.items() if k != "settings"}
    with pytest.raises(ConfigError, match="another recipe or another number of devices"):
        simulate(echoes(tmp_path, *settings, **options))


def test_whatever_happens_nothing_stays_running(tmp_path):
    worlds = []

    def watch(world):
        worlds.append(world)
        if len(world.jobs.running) == 1:
            raise Stopped

    with pytest.raises(Stopped):
        simulate(echoes(tmp_path, workers=2), watch)
    slots = worlds[0].jobs.executor.slots
    assert [slot.errand.child for slot in slots] == [None, None]


def test_devices_that_do_not_answer_cost_virtual_time_only(tmp_path):
    def watch(world):
        for name in [name for name in world.crowd.live if name != "device-00"]:
            world.jobs.drop(world.crowd.live.pop(name).worker.token)

    figures = simulate(echoes(tmp_path, "rounds=1", "devices.quorum=0.25", "devices.deadline_s=600.0"), watch)
    assert (figures["rounds"], figures["updates"]) == (1, 1)
    assert figures["seconds"] < 60


def test_a_run_of_an_older_version_with_settings_refused_today_says_which_it_is(tmp_path):
    interrupted(echoes(tmp_path), 1)
    database = open_database(tmp_path / "home" / "fleet.sqlite")
    wanted = json.loads(database.row("SELECT value FROM facts WHERE name = 'simulated'")["value"])
    wanted["recipe"]["privacy"]["noise"] = 1.0
    with database.change():
        database.write("UPDATE facts SET value = ? WHERE name = 'simulated'", json.dumps(wanted))
    database.close()
    with pytest.raises(ConfigError, match=r"the run in .* refuses: privacy\.noise = 1\.0.*start a new run"):
        left_order(tmp_path)
