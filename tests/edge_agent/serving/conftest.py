"""A device at a broker in memory, and one that serves a model already."""

from __future__ import annotations

import pytest

from tests.edge_agent.serving.stage.files import file_bytes
from tests.edge_agent.serving.stage.sides import Side


@pytest.fixture
def side(tmp_path):
    made = []

    def seat(**changes):
        made.append(Side(tmp_path, **changes))
        return made[-1]

    yield seat
    for one in made:
        one.agent.stop()


@pytest.fixture
def one(side):
    """Returns a side whose device serves version 1 and finds it healthy."""
    made = side()
    assert made.bring(made.publisher.manifest(1, {"float-32": file_bytes()})).phase == "healthy"
    return made
