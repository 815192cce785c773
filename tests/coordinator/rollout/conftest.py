from __future__ import annotations

import pytest

from coordinator.home import open_home
from coordinator.recipe import load_recipe
from tests.coordinator.rollout.boards import Scene

RUN = load_recipe("echo", ['model="vector-64"', "rounds=4", "devices.goal=2"])


@pytest.fixture
def scene(tmp_path):
    """Returns a function that sets boards up by script, as in scene("healthy", "silent"), `beside` a run."""
    with open_home(tmp_path / "home", durable=False) as home:

        def make(*scripts, beside=False):
            scripts = {f"dev-{at}": script for at, script in enumerate(scripts)}
            return Scene(home, tmp_path, scripts, RUN if beside else None)

        yield make
