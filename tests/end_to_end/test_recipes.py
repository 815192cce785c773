"""Every shipped recipe, scaled down, with real processes over mosquitto: killed and resumed, it ends with the model of
the same federation in one process."""

from __future__ import annotations

import time

import pytest

from coordinator.home import open_home
from coordinator.recipe import recipe_names
from tests.conftest import started
from tests.end_to_end.fleet import COORDINATOR, fleet, undisturbed_model
from tests.small_recipes import small_recipe
from wire.errors import ConfigError, StateError

WAIT_S = 120.0
EVERY_DAY = {"combined"}  # about 30 s each


def names():
    return [name if name in EVERY_DAY else pytest.param(name, marks=pytest.mark.long) for name in recipe_names()]


def until(running, so):
    ends_s = time.monotonic() + WAIT_S
    while not so():
        assert time.monotonic() < ends_s, running.tails()
        time.sleep(0.01)


def phases(running):
    """Returns which phase each round came to, as far as the books say."""
    with running.books() as database:
        rows = database.rows("SELECT round, state FROM rounds") if database and running.run else []
        return {row["round"]: row["state"] for row in rows}


def kill_and_resume(running, name):
    running.kill(name)
    running.restart(name)


@pytest.mark.parametrize("name", names())
def test_killed_and_resumed_it_ends_with_the_model_of_one_process(name, tmp_path):
    wanted = small_recipe(name)
    started("mosquitto", tmp_path / "probe").stop()
    with fleet("mosquitto", tmp_path / "fleet", wanted, name=f"twin-{name}") as running:
        until(running, lambda: phases(running).get(0) == "published")
        kill_and_resume(running, "dev-1")
        until(running, lambda: 1 in phases(running))
        kill_and_resume(running, COORDINATOR)
        running.finish(WAIT_S)
        ledger = running.ledger()
        model = undisturbed_model(tmp_path / "memory", wanted, twin=running)
    assert running.name == f"twin-{name}" == ledger[0]["run"]
    assert (ledger[-1]["status"], ledger[-1]["model"]) == ("done", model)
    assert [line["round"] for line in ledger if line["event"] == "phase" and line["phase"] == "published"] == [0, 1, 2]
    assert not [line for line in ledger if line["event"] in ("refused", "declined")]


@pytest.mark.parametrize("name", ["Twin", "a b", "../twin", "x" * 33])
def test_a_run_s_name_is_one_that_a_plan_can_carry(name, tmp_path):
    with open_home(tmp_path) as home, pytest.raises(ConfigError, match="run name"):
        home.new_run(small_recipe("echo"), name=name)


def test_a_run_s_name_is_used_once(tmp_path):
    """Two runs of one name and one key would have the same noise."""
    with open_home(tmp_path) as home:
        assert home.new_run(small_recipe("echo"), name="twin") == "twin"
        with pytest.raises(StateError, match="there is a run 'twin'"):
            home.new_run(small_recipe("echo"), name="twin")
