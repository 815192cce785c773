"""A device that serves the narrowest file of a bundle."""

from __future__ import annotations

import pytest

from tests.edge_agent.serving.stage.bundles import nested, policy


@pytest.fixture
def four(side):
    """Returns a side whose device serves the 4 bits of a bundle."""
    one = side(model=policy(4))
    assert one.bring(nested().manifest(one.publisher, 1)).variant == "float-4"
    return one
