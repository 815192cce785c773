from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from coordinator.learning.checkpoint import ServerState, save_state
from coordinator.learning.evaluator import ChildEvaluator, Question, evaluate
from edge_agent.training.trainer import fit
from models.archs import spec_of
from models.data import load as load_data
from models.init import initial
from models.tasks import task
from models.weights import ladder as module
from wire.messages.train import TrainSettings


@pytest.mark.parametrize("loss", [float("inf"), float("nan"), 0.5])
def test_a_figure_that_is_not_finite_is_left_out(tmp_path, monkeypatch, loss):
    goal = task("digits")
    spec = spec_of("mlp-8", goal.input, goal.outputs, 1, ())
    params = initial(spec)
    save_state(tmp_path / "state", ServerState(params, params), spec)
    monkeypatch.setattr(module, "measure", lambda net, data, **_: {"loss": loss, "accuracy": 0.25})
    figures = evaluate(Question(spec, str(tmp_path / "state"), "digits"))
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["accuracy"] == 0.25
    assert ("loss" in figures) == (loss == 0.5)


def trained(folder, **more):
    """Returns the question about a net on digits that was trained for a moment."""
    goal = task("digits")
    spec = spec_of("mlp-16-16", goal.input, goal.outputs, 1, ())
    settings = TrainSettings("digits", epochs=1, batch=16, rate=0.2, transforms=more.get("transforms", ()))
    params = fit(initial(spec), spec, load_data("digits", "train"), settings, (1, 0, "dev-1")).params
    save_state(folder / "state", ServerState(params, params), spec)
    return Question(spec, str(folder / "state"), "digits", **more)


def test_it_is_measured_at_each_bit_width(tmp_path):
    question = trained(tmp_path, bits=(32, 8, 2))
    found = evaluate(question)
    assert list(found["accuracy_by_bits"]) == ["32", "8", "2"]
    assert found["accuracy_by_bits"]["32"] == found["accuracy"] > 0.5
    assert abs(found["accuracy_by_bits"]["8"] - found["accuracy"]) < 0.02
    assert found["accuracy_by_bits"]["2"] < found["accuracy"] - 0.1
    assert "accuracy_unmasked" not in found
    assert found["examples"] == len(load_data("digits", "test"))


@pytest.mark.parametrize(("grid", "rule"), [("channel", "minmax"), ("tensor", "lsq"), ("channel", "lsq")])
def test_the_grid_and_its_range_are_those_that_are_asked_for(tmp_path, grid, rule):
    question = trained(tmp_path, bits=(3, 2))
    found, other = evaluate(question), evaluate(replace(question, grid=grid, range=rule))
    assert found["accuracy"] == other["accuracy"]
    assert found["accuracy_by_bits"] != other["accuracy_by_bits"]


def test_masks_stand_in_the_way_as_they_did_in_training(tmp_path):
    masked = ({"transform": "swat", "sparsity": 0.8},)
    question = trained(tmp_path, transforms=masked, bits=(32,))
    found, bare = evaluate(question), evaluate(replace(question, transforms=()))
    assert found["accuracy_unmasked"] == bare["accuracy"]
    assert found["accuracy"] == found["accuracy_by_bits"]["32"] != bare["accuracy"]


@pytest.mark.parametrize("transform", [{"transform": "mqat", "bits": [3, 8]}, {"transform": "apqn", "bits": 3}])
def test_noise_of_training_is_not_there_when_it_is_measured(tmp_path, transform):
    question = trained(tmp_path, transforms=(transform,))
    assert evaluate(question) == evaluate(replace(question, transforms=()))


def test_the_child_gives_the_same_figures_and_names_what_is_wrong(tmp_path):
    question = trained(tmp_path, bits=(8, 4))
    child = ChildEvaluator()
    try:
        assert asked(child, question) == evaluate(question)
        assert "cannot be read" in asked(child, replace(question, checkpoint=str(tmp_path / "none")))["error"]
        assert asked(child, question) == evaluate(question)
    finally:
        child.stop()


def asked(child, question):
    child.start(question)
    ends_s = time.monotonic() + 60
    while (found := child.poll()) is None:
        assert time.monotonic() < ends_s
        time.sleep(0.01)
    return found
