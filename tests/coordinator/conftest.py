from __future__ import annotations

import pytest

from coordinator.home import open_home
from coordinator.recipe import load_recipe
from tests.coordinator.room import Room


@pytest.fixture
def room(tmp_path):
    """Returns a function that opens a run whose devices are here and invited."""
    with open_home(tmp_path / "home") as home:

        def make(*settings, devices=("dev-0", "dev-1")):
            goal = f"devices.goal={len(devices)}"
            made = Room(home, load_recipe("echo", ['model="vector-64"', "rounds=3", goal, *settings]))
            made.join(*devices)
            return made

        yield make
