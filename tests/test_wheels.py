"""What scripts/build-agent puts into the two wheels: all that their code imports, and what their projects look for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {"wire", "models", "edge_agent", "coordinator", "export", "simulation", "benchmarks", "tests"}
PROJECTS = {"bitfleet": "pyproject.toml", "bitfleet-agent": "deploy/agent/pyproject.toml"}


def folders_of(wheel: str) -> set[str]:
    (words,) = re.findall(rf'^build {wheel} "[^"]+" (.+)$', (ROOT / "scripts/build-agent").read_text(), re.MULTILINE)
    return set(words.split())


def imported(folder: str) -> set[str]:
    found = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            found |= {name.split(".")[0] for name in names}
    return found & OURS


@pytest.mark.parametrize("wheel", PROJECTS)
def test_a_wheel_has_what_its_code_imports(wheel):
    folders = folders_of(wheel)
    assert {name for folder in folders for name in imported(folder)} <= folders


@pytest.mark.parametrize("wheel", PROJECTS)
def test_a_wheel_has_what_its_project_looks_for(wheel):
    (include,) = re.findall(r"^include = \[(.*)\]$", (ROOT / PROJECTS[wheel]).read_text(), re.MULTILINE)
    assert set(re.findall(r'"(\w+)\*"', include)) == folders_of(wheel)
