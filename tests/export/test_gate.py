"""The gate: what passes is measured, and every way to fail has its reason."""

import dataclasses

import numpy as np
import onnx
import pytest

from export.gate import check
from export.graph import replaced
from export.proof.clocks import race
from export.proof.operators import unfolded
from export.refused import ExportError
from export.sessions import answers, open_session


@pytest.fixture
def whole(case):
    one = case("cnn-5-9")
    return one.gate(one.forms(4, "float"), "float")


@pytest.fixture
def integers(case):
    one = case("cnn-5-9")
    return one.gate(one.forms(4, "int8"), "int8")


def changed(data, change):
    model = onnx.load_model_from_string(data)
    change(model.graph, {tensor.name: tensor for tensor in model.graph.initializer})
    return model.SerializeToString()


def flip(graph, tensors):
    name = next(name for name in tensors if name.endswith("/p"))
    raw = bytearray(tensors[name].raw_data)
    raw[1] ^= 0x55
    tensors[name].raw_data = bytes(raw)


def refused(arguments, reason, **others):
    with pytest.raises(ExportError, match=reason) as caught:
        check(**{**arguments, **others})
    assert caught.value.code == "E-EXPORT"


def test_what_passes_is_measured(whole, integers):
    for arguments in (whole, integers):
        result = check(**arguments, max_bytes=len(arguments["data"]))
        assert result.file_bytes == len(arguments["data"])
        assert result.size_ratio == len(arguments["data"]) / len(arguments["model"].SerializeToString())
        found = answers(open_session(arguments["data"]), arguments["inputs"])
        assert result.max_difference == np.abs(found - arguments["reference"]).max()
        assert (result.tolerance, result.ties) == (1e-4, 0)
        assert 0 <= result.agreement <= 1
        assert min(result.load.ratio, result.latency.ratio, result.latency.first_ms) > 0
        assert dataclasses.asdict(result)["profile"] == arguments["profile"]


def test_a_bit_that_flipped(whole, integers):
    refused(whole, "differ from PyTorch's", data=changed(whole["data"], flip))
    refused(integers, "twin", data=changed(integers["data"], flip))


def test_a_file_that_was_cut(whole):
    refused(whole, "checker", data=whole["data"][:-200])
    refused(whole, "checker", data=b"")


def test_what_is_not_finite(case, whole, integers):
    for arguments in (whole, integers):
        wrong = np.full_like(arguments["reference"], np.nan)
        refused(arguments, "PyTorch's outputs are not finite", reference=wrong)
    one = case("cnn-5-9")
    broken = replaced(one.model, {"out.bias": np.array([0, 0, np.nan, 0, 0], np.float32)})
    data = changed(whole["data"], lambda graph, tensors: tensors["out.bias"].CopyFrom(broken.graph.initializer[-1]))
    held = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_model_from_string(data).graph.initializer}
    assert np.isnan(held["out.bias"]).any()
    refused(whole, "16 of the file's outputs are not finite", data=data)


def test_planes_that_are_not_constant_are_unpacked_at_every_call(whole):
    def loosen(graph, tensors):
        name = next(name for name in tensors if name.endswith("/p"))
        graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, list(tensors[name].dims)))

    refused(whole, "unpacked at every call", data=changed(whole["data"], loosen))


def test_weights_that_are_dequantised_at_every_call(case, whole):
    form = case("cnn-5-9").forms(8, "int8")["out.weight"]

    def dequantise(graph, tensors):
        maker = next(node for node in graph.node if "out.weight" in node.output)
        made = [
            onnx.numpy_helper.from_array(form.int8, "q"),
            onnx.numpy_helper.from_array(form.scale, "s"),
        ]
        graph.initializer.extend(made)
        maker.CopyFrom(onnx.helper.make_node("DequantizeLinear", ["q", "s"], ["out.weight"], axis=0))

    refused(whole, "DequantizeLinear", data=changed(whole["data"], dequantise))


def test_integers_where_floats_were_promised_and_the_other_way(whole, integers):
    refused(whole, "does not run as the plain model", data=integers["data"])
    refused(integers, "Conv", data=whole["data"])
    assert "0 of 3 layers are QLinearConv or QGemm" in unfolded({"Conv": 3}, {"Conv": 3}, "int8", 3)
    assert unfolded({"QLinearConv": 2, "QGemm": 1}, {"QLinearConv": 2, "QGemm": 1}, "int8", 3) == ""


def of_float(model, inputs):
    """Returns the gate's arguments for a float model, held against itself."""
    data = model.SerializeToString()
    found = answers(open_session(data), inputs)
    return {"data": data, "model": model, "inputs": inputs, "reference": found, "profile": "float", "rounds": 1}


def test_another_class_on_top_is_refused_unless_the_two_are_tied(case):
    one = case("mlp-16")
    weight = one.weights["out.weight"].copy()
    weight[1] = weight[0]
    model = replaced(one.model, {"out.weight": weight, "out.bias": np.array([3, 3, 0, 0, 0], np.float32)})
    arguments = of_float(model, one.inputs)
    found = arguments["reference"]
    assert (found[:, 0] == found[:, 1]).all()
    near, far = found.copy(), found.copy()
    near[:, 1] += 5e-6
    far[:, 1] += 5e-5  # less than the outputs may differ by
    result = check(**{**arguments, "reference": near})
    assert (result.ties, result.agreement) == (16, 0)
    refused(arguments, "16 of 16 inputs get another class", reference=far)


def test_the_tolerance_grows_with_the_logits(case):
    one = case("mlp-16")
    model = replaced(one.model, {"out.bias": np.array([1000, 0, 0, 0, 0], np.float32)})
    arguments = of_float(model, one.inputs)
    found = arguments["reference"]
    result = check(**{**arguments, "reference": found + np.float32(5e-3)})
    assert result.tolerance == pytest.approx(1e-2, rel=0.01)
    refused(arguments, "allowed is 0.01", reference=found + np.float32(5e-2))


def test_too_large_and_not_in_one_file(whole):
    refused(whole, "allowed are 100", max_bytes=100)

    def outside(graph, tensors):
        tensor = next(iter(tensors.values()))
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
        tensor.external_data.add(key="location", value="weights.bin")

    refused(whole, "checker|another file", data=changed(whole["data"], outside))


def test_wrong_questions(whole, integers):
    refused(integers, "twin", twin=None)
    refused(whole, "twin", twin=whole["data"])
    refused(whole, "profile 'int4'", profile="int4")
    refused(whole, "no inputs", inputs=whole["inputs"][:0])
    refused(whole, "shape", reference=whole["reference"][:, :3])
    refused(whole, "cannot run", inputs=whole["inputs"][:, :1])


def test_a_race_alternates_and_takes_medians():
    calls = []
    result = race(lambda: calls.append("a"), lambda: calls.append("b"), rounds=3, calls=2)
    assert "".join(calls) == "aabb" * 3
    assert min(result.first_ms, result.ratio) > 0
