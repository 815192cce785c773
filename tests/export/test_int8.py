"""Integer arithmetic: ranges of activations, what is rounded where, and how near it stays to the float net."""

import numpy as np
import onnx
import pytest

from export.graph import replaced
from export.int8 import ACTIVATION_RANGES, ranges_of
from export.refused import ExportError
from export.sessions import answers, open_session
from export.store.quantised import plan_of
from export.variant import write


def test_ranges_hold_what_was_seen_and_zero(every):
    ranges = every.ranges
    low = {name: -ranges.zero[name] * ranges.scale[name] for name in ranges.scale}
    high = {name: (255 - ranges.zero[name]) * ranges.scale[name] for name in ranges.scale}
    assert (every.inputs.min() >= 0, ranges.zero["input"]) == (True, 0)
    assert abs(high["input"] - every.inputs.max()) < 1e-6
    assert all(low[name] <= 0 <= high[name] for name in low)
    assert (ranges.rule, ranges.examples) == ("minmax", 16)
    assert set(ranges.scale) == set(plan_of(every.model).free)


def test_batches_do_not_matter(case):
    one = case("cnn-5-9")
    for rule in ACTIVATION_RANGES:
        whole, parts = (ranges_of(one.model, one.inputs, rule, batch=size) for size in (16, 5))
        assert whole == parts


def test_the_narrower_ranges_are_within_min_max_and_let_outliers_go(case):
    one = case("cnn-5-9")
    inputs = np.tile(one.inputs, (64, 1, 1, 1))
    inputs[0, 0, 0, 0] = 500.0
    scales = {rule: ranges_of(one.model, inputs, rule).scale["input"] for rule in ACTIVATION_RANGES}
    assert scales["percentile"] < scales["minmax"] / 50
    assert scales["mse"] <= scales["minmax"]


def test_integer_answers_stay_near_the_float_net(every):
    forms = every.forms(8, "int8")
    floats = answers(open_session(every.model.SerializeToString()), every.inputs)
    found = answers(open_session(every.file(forms, "int8")), every.inputs)
    spread = floats.max() - floats.min()
    assert 0 < np.abs(found - floats).max() < 0.05 * spread


def test_rounded_weights_have_ranges_of_their_own(case):
    one = case("cnn-5-9")
    forms = one.forms(2, "int8", "symmetric")
    rounded = replaced(one.model, {name: form.values() for name, form in forms.items()})
    wanted = one.reference(forms, "int8")
    off = [
        np.abs(answers(open_session(write(one.model, forms, "int8", ranges)), one.inputs) - wanted).max()
        for ranges in (one.ranges, ranges_of(rounded, one.inputs))
    ]
    assert off[1] < off[0]


def test_what_is_rounded(case):
    plan = plan_of(case("cnn1d-8").model)
    kinds = {output: node.op_type for node in case("cnn1d-8").model.graph.node for output in node.output}
    rounded = [kinds.get(name, name) for name in plan.scale_of]
    assert sorted(rounded) == ["Flatten", "GlobalAveragePool", "MaxPool", "Relu", "input"]
    assert sorted(kinds.get(name, name) for name in plan.free) == ["GlobalAveragePool", "Relu", "input"]
    assert "output" not in plan.scale_of


def test_a_relu_whose_range_starts_at_zero_is_the_rounding_itself(case):
    one = case("cnn-5-9")
    nodes = [node.op_type for node in onnx.load_model_from_string(one.file(one.forms(8, "int8"), "int8")).graph.node]
    assert "Relu" not in nodes
    assert nodes.count("QuantizeLinear") == len(plan_of(one.model).scale_of)


def test_activations_that_are_all_zero_have_a_scale(case):
    one = case("mlp-16")
    dead = replaced(one.model, {"fc1.weight": -np.abs(one.weights["fc1.weight"]), "fc1.bias": np.zeros(16, np.float32)})
    ranges = ranges_of(dead, np.abs(one.inputs))
    assert min(ranges.scale.values()) > 0
    data = write(dead, one.forms(4, "int8"), "int8", ranges)
    assert np.isfinite(answers(open_session(data), one.inputs)).all()


def test_what_cannot_be_measured_is_refused(case):
    one = case("mlp-16")
    with pytest.raises(ExportError, match="0 inputs"):
        ranges_of(one.model, one.inputs[:0])
    with pytest.raises(ExportError, match="cannot run"):
        ranges_of(one.model, one.inputs[:, :, :3])
    with pytest.raises(ExportError, match="entropy"):
        ranges_of(one.model, one.inputs, "entropy")
    broken = replaced(one.model, {"fc1.bias": np.full(16, np.nan, np.float32)})
    with pytest.raises(ExportError, match="nan"):
        ranges_of(broken, one.inputs)
    with pytest.raises(ExportError, match="no range"):
        write(one.model, one.forms(4, "int8"), "int8", ranges_of(case("leaf").model, case("leaf").inputs))


def test_a_bias_that_int32_cannot_hold_is_refused(case):
    one = case("mlp-16")
    huge = replaced(one.model, {"out.bias": np.full(5, 1e12, np.float32)})
    with pytest.raises(ExportError, match="bias"):
        write(huge, one.forms(8, "int8"), "int8", one.ranges)
