from __future__ import annotations

import json

import pytest

from coordinator.learning.checkpoint import ServerState, save_state
from coordinator.learning.evaluator import evaluate
from models import measure as module
from models.archs import spec_of
from models.init import initial
from models.tasks import task


@pytest.mark.parametrize("loss", [float("inf"), float("nan"), 0.5])
def test_a_figure_that_is_not_finite_is_left_out(tmp_path, monkeypatch, loss):
    goal = task("digits")
    spec = spec_of("mlp-8", goal.input, goal.outputs, 1, ())
    params = initial(spec)
    save_state(tmp_path / "state", ServerState(params, params), spec)
    monkeypatch.setattr(module, "measure", lambda net, data: {"loss": loss, "accuracy": 0.25})
    figures = evaluate(spec, tmp_path / "state", "digits")
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["accuracy"] == 0.25
    assert ("loss" in figures) == (loss == 0.5)
