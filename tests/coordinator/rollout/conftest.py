from __future__ import annotations

import pytest

from coordinator.home import open_home
from tests.coordinator.rollout.boards import Scene


@pytest.fixture
def scene(tmp_path):
    """Returns a function that sets boards up by script, as in scene("healthy", "silent")."""
    with open_home(tmp_path / "home", durable=False) as home:
        yield lambda *scripts: Scene(home, tmp_path, {f"dev-{at}": script for at, script in enumerate(scripts)})
