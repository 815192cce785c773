"""Stands in for installed packages: a module and a dist-info in a temporary folder on the path."""

import importlib
import sys
from types import ModuleType

import pytest


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Returns a function that offers objects as the entry points of a group."""

    def offered(group, objects):
        module = ModuleType("offered_for_test")
        vars(module).update({f"thing{at}": value for at, value in enumerate(objects.values())})
        monkeypatch.setitem(sys.modules, module.__name__, module)
        dist = tmp_path / f"offered_{group.replace('.', '_')}-1.dist-info"
        dist.mkdir(exist_ok=True)
        (dist / "METADATA").write_text(f"Metadata-Version: 2.1\nName: offered-{group}\nVersion: 1\n")
        lines = [f"{name} = {module.__name__}:thing{at}" for at, name in enumerate(objects)]
        (dist / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    return offered
