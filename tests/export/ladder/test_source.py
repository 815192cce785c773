"""What is exported: what it must satisfy, and how its examples are shared out."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from export.graph import float_graph, weights_of
from export.grids import place
from export.ladder.choice import choose_range, loss_of
from export.ladder.source import judged
from export.proof.reference import outputs
from export.refused import ExportError
from models.dataset import Dataset
from tests.export.ladder.conftest import CALIBRATION, EXAMPLES
from wire.errors import BitfleetError, ConfigError, DataError


def test_examples_that_choose_state_no_accuracy(source):
    one = source("mlp-32")
    assert len(one.chooses) == CALIBRATION and len(one.states) == EXAMPLES - CALIBRATION
    assert np.array_equal(np.concatenate([one.chooses.x, one.states.x]), one.data.x)
    assert np.array_equal(np.concatenate([one.chooses.y, one.states.y]), one.data.y)
    assert len(one.checks) == 64 and len(one.candidates) == CALIBRATION


def test_as_many_examples_as_choose_leave_none(source):
    assert source("mlp-32", examples=CALIBRATION).states is None
    assert len(source("mlp-32", examples=CALIBRATION + 1).states) == 1


def test_the_net_that_is_built_once_answers_as_one_built_anew(source):
    one = source("cnn-8-16", freeze=("conv1.*",))
    weights = weights_of(float_graph(one.spec, one.params))
    plain = one.answers({}, one.checks)
    rounded = {name: place(value, 3, "ls", "float").values() for name, value in weights.items()}
    changed = one.answers(rounded, one.checks)
    assert np.array_equal(changed, outputs(one.spec, one.params, rounded, one.checks))
    assert not np.array_equal(changed, plain)
    assert np.array_equal(one.answers({}, one.checks), plain), "the weights of the call before stayed"


def test_the_range_that_loses_least_is_taken(source):
    one = source("cnn-8-16")
    weights = weights_of(float_graph(one.spec, one.params))
    best = choose_range(one, weights, 2, "float")
    for name in ("minmax", "symmetric", "symmetric_ls", "mse", "ls"):
        forms = {weight: place(values, 2, name, "float") for weight, values in weights.items()}
        assert loss_of(one, weights, forms, "float") >= ("loss", best.loss)


def test_a_tensor_that_loses_nothing_does_not_hide_the_others(source):
    one = source("mlp-32", examples=0)
    weights = weights_of(float_graph(one.spec, one.params))
    weights = {**weights, "out.weight": np.zeros_like(weights["out.weight"])}
    best = choose_range(one, weights, 2, "float")
    assert best.by == "sqnr" and np.isfinite(best.loss)
    assert best.range not in ("minmax", "symmetric")


def test_judged_by_hand():
    found = judged(np.float32([[0, np.log(3)], [1000, 0]]), np.array([1, 1]))
    assert found.loss == pytest.approx((np.log(4 / 3) + 1000) / 2)
    assert (found.accuracy, found.examples) == (0.5, 2)
    with pytest.raises(ExportError, match="1 outputs are not finite"):
        judged(np.float32([[0, np.inf]]), np.array([1]))


@pytest.mark.parametrize(
    "wrong, error, text",
    [
        ({"model": "My Model"}, ConfigError, "My Model"),
        ({"model": ""}, ConfigError, "hyphen"),
        ({"labels": ("a", "b")}, ConfigError, "2 labels for 5 outputs"),
        ({"calibration": 0}, ConfigError, "--calibration"),
        ({"params": {}}, BitfleetError, "fc1"),
        ({"data": Dataset(np.zeros((3, 1, 5, 5), np.float32), np.zeros(3, np.int64))}, DataError, "task"),
        ({"data": Dataset(np.zeros((3, 1, 6, 6), np.float32), np.full(3, 5))}, DataError, "label"),
        ({"data": Dataset(np.zeros((0, 1, 6, 6), np.float32), np.zeros(0, np.int64))}, DataError, "at least one"),
    ],
)
def test_what_cannot_be_exported_is_refused_at_once(wrong, error, text, source):
    with pytest.raises(error, match=text):
        dataclasses.replace(source("mlp-32"), **wrong)


def test_a_model_that_is_not_finite_is_refused_by_tensor(source):
    one = source("mlp-32")
    broken = {**one.params, "fc1.bias": one.params["fc1.bias"] * np.float32("nan")}
    with pytest.raises(ExportError, match=r"fc1\.bias.*train again"):
        dataclasses.replace(one, params=broken)
