"""docs/methods.md: every piece of a recipe that it shows is one, every method has its recipe, every file is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from coordinator.recipe import load_recipe, recipe_names

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
PIECES = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
NET = 'task = "fashion"\nmodel = "leaf"\n'
STAGES = '\nstages = [{ stage = "topk", share = 0.01 }]\n'


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_a_piece_is_part_of_a_recipe(tmp_path, piece):
    path = tmp_path / "mine.toml"
    path.write_text(NET + piece + (STAGES if piece.startswith("[uplink]\nfeedback") else ""))
    recipe = load_recipe(str(path))
    assert recipe != load_recipe("fedavg", ['task="fashion"', 'model="leaf"', 'name="mine"'])


def test_every_method_has_its_recipe():
    shown = set(re.findall(r"[Rr]ecipes?\s+((?:`[a-z-]+`(?:, | and )?)+)", DOCUMENT))
    named = {name for text in shown for name in re.findall(r"`([a-z-]+)`", text)}
    assert named == set(recipe_names()) - {"echo", "fedavg", "fedavg-4bit"}


def test_every_file_is_there():
    paths = set(re.findall(r"`((?:models|wire|edge_agent|coordinator|benchmarks)/[a-z_./]*)`", DOCUMENT))
    assert len(paths) > 8
    assert [path for path in sorted(paths) if not (ROOT / path).exists() and "results" not in path] == []
