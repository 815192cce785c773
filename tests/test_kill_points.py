"""Every point at which the end-to-end tests kill a process is a name that the code still has: found in a second."""

from __future__ import annotations

from functools import reduce
from importlib import import_module

import pytest

from tests.end_to_end import test_chaos as chaos

POINTS = [point for name in dir(chaos) if name.endswith("POINTS") for point in getattr(chaos, name)]


@pytest.mark.parametrize("target", sorted({point.target for point in (*POINTS, *chaos.MOVES)}))
def test_the_name_is_there(target):
    module, _, path = target.partition(":")
    assert callable(reduce(getattr, path.split("."), import_module(module)))
