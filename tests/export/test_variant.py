"""Files: every architecture, width and profile passes the gate; what is stored comes back to the last bit."""

import dataclasses
import json

import numpy as np
import onnx
import onnxruntime
import pytest

from export.forms import Integer, Plain, Table
from export.gate import check
from export.grids import PROFILES, fitted
from export.proof.operators import operators_of
from export.refused import ExportError
from export.sessions import answers, open_session
from export.store.planes import pack, unpack
from export.variant import computed, write
from wire.params import params_digest

WIDTHS = (8, 6, 5, 4, 3, 2)


def weights_in(data):
    """Returns the value of every weight as the unoptimised file computes it."""
    model = onnx.load_model_from_string(data)
    names = [node.input[1] for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    makers = {node.output[0]: node for node in model.graph.node}
    # The weight of an integer layer is read before it becomes float.
    names = [makers[n].input[0] if n in makers and makers[n].op_type == "DequantizeLinear" else n for n in names]
    kept = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    inner = [name for name in names if name not in kept]
    if inner:
        model.graph.ClearField("output")
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        shape = [1, *(side for side in session.get_inputs()[0].shape[1:])]
        kept |= dict(zip(inner, session.run(inner, {"input": np.zeros(shape, np.float32)}), strict=True))
    return {name: kept[name] for name in names}


def tensors_in(data):
    return {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load_model_from_string(data).graph.initializer}


def table_forms(case, bits):
    centres = np.linspace(0.3, -0.4, 2**bits).astype(np.float32)
    forms = {}
    for name, value in case.weights.items():
        codes = np.abs(value[..., None] - centres).argmin(-1).astype(np.uint8)
        forms[name] = Table(bits, codes, centres)
    return forms


def gated(case, forms, profile):
    result = check(**case.gate(forms, profile))
    stored = weights_in(case.file(forms, profile))
    assert set(stored) == set(forms)
    for name, form in forms.items():
        assert np.array_equal(stored[name], form.int8 if profile == "int8" else form.values())
    return result


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("bits", WIDTHS)
def test_every_width_of_every_net_is_exact(every, bits, profile):
    result = gated(every, every.forms(bits, profile), profile)
    integers = sum(result.operators.get(name, 0) for name in ("QLinearConv", "QGemm"))
    assert integers == (len(every.weights) if profile == "int8" else 0)
    assert profile == "int8" or result.max_difference < 2e-5


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("bits", [1, 2, 3, 8])
def test_learned_centres_are_exact(every, bits, profile):
    gated(every, table_forms(every, bits), profile)


def test_whole_numbers_may_be_computed_in_float(every):
    forms = every.forms(3, "int8")
    assert all(isinstance(form, Integer) for form in forms.values())
    gated(every, forms, "float")


def test_a_layer_may_stay_as_it_was(case):
    one = case("cnn-5-9")
    forms = {**one.forms(4, "float"), "out.weight": Plain(one.weights["out.weight"])}
    gated(one, forms, "float")
    with pytest.raises(ExportError, match="Plain"):
        one.file({**one.forms(4, "int8"), "out.weight": Plain(one.weights["out.weight"])}, "int8")


@pytest.mark.parametrize("profile", PROFILES)
def test_each_layer_may_have_a_width_of_its_own(case, profile):
    one = case("resnet8-8")
    widths = dict(zip(one.weights, [8, 2, 3, 4, 5, 6, 3, 2, 4, 8], strict=True))
    forms = {name: one.forms(bits, profile)[name] for name, bits in widths.items()}
    gated(one, forms, profile)
    told = open_session(one.file(forms, profile)).get_modelmeta().custom_metadata_map
    assert json.loads(told["bits"]) == widths


@pytest.mark.parametrize("profile", PROFILES)
def test_frozen_tensors_get_forms_like_all_others(case, profile):
    one = case("cnn-5-9", ("conv1.*", "out.bias"))
    assert "conv1.weight" in one.weights
    gated(one, one.forms(3, profile), profile)


def test_planes_of_narrow_files_are_the_first_of_the_widest(case):
    one = case("cnn1d-8")
    wide = one.forms(8, "float")
    for bits in (8, 5, 2):
        forms = {n: fitted(w, wide[n].codes >> (8 - bits), bits) for n, w in one.weights.items()}
        data = one.file(forms, "float")
        plain = one.file({n: dataclasses.replace(form, spread=False) for n, form in forms.items()}, "float")
        assert (len(data) > len(plain)) == (bits == 8)
        assert np.array_equal(answers(open_session(data), one.inputs), answers(open_session(plain), one.inputs))
        for form in wide.values():
            assert pack(form.codes, 8)[:bits].tobytes() in data
        assert operators_of(data) == operators_of(plain)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("bits", [5, 8])
def test_payload_is_what_lies_in_the_file(every, bits, profile):
    forms = every.forms(bits, profile)
    held = tensors_in(every.file(forms, profile))
    for name, form in forms.items():
        parts = [value.nbytes for key, value in held.items() if key == name or key.startswith(f"{name}/")]
        assert sum(parts) == form.payload_bytes


def test_planes_in_a_file_unpack_to_the_codes(case):
    one = case("mlp-16")
    forms = one.forms(3, "float")
    held = tensors_in(one.file(forms, "float"))
    for name, form in forms.items():
        assert np.array_equal(unpack(held[f"{name}/p"], form.codes.size), form.codes.reshape(-1))


@pytest.mark.parametrize("profile", PROFILES)
def test_equal_arguments_give_equal_bytes(case, profile):
    one = case("mobile-8-16")
    forms = one.forms(4, profile)
    backwards = dict(reversed(forms.items()))
    told = {"run": "r1", "labels": ["a"]}
    assert one.file(forms, profile, metadata=told) == one.file(
        backwards, profile, metadata=dict(reversed(told.items()))
    )


@pytest.mark.parametrize("profile", PROFILES)
def test_what_a_file_says_of_itself(case, profile):
    one = case("cnn-5-9")
    forms = one.forms(4, profile)
    data = one.file(forms, profile, metadata={"run": "r1", "labels": ["ä", "b"], "preprocessing": {"scale": 0.5}})
    told = open_session(data).get_modelmeta().custom_metadata_map
    assert told["bits"] == "4"
    assert told["profile"] == profile
    assert told["scheme"] == ("integer" if profile == "int8" else "uniform")
    assert told["weights_sha256"] == params_digest({name: computed(form, profile) for name, form in forms.items()})
    assert (told["run"], told["labels"], told["preprocessing"]) == ("r1", '["ä","b"]', '{"scale":0.5}')
    assert (told["opset"], told["ir"], told["min_runtime"], told["input"]) == ("18", "8", "1.16", "[3,9,11]")
    assert ("calibration" in told) == (profile == "int8")
    model = onnx.load_model_from_string(data)
    assert model.ir_version == 8
    assert [(line.domain, line.version) for line in model.opset_import] == [("", 18)]
    assert not [tensor.name for tensor in model.graph.initializer if tensor.external_data]


def test_nodes_cost_little(case):
    one = case("cnn-5-9")
    floats = sum(value.nbytes for name, value in one.params.items() if value.ndim == 1)
    for profile in PROFILES:
        forms = one.forms(4, profile)
        stored = sum(form.payload_bytes for form in forms.values())
        assert len(one.file(forms, profile)) - stored - floats < 4096


def test_arguments_that_do_not_go_together_are_refused(case):
    one = case("mlp-16")
    forms = one.forms(4, "float")
    with pytest.raises(ExportError, match=r"out\.weight"):
        one.file({"fc1.weight": forms["fc1.weight"]}, "float")
    with pytest.raises(ExportError, match=r"fc1\.weight"):
        one.file({**forms, "fc1.weight": forms["out.weight"]}, "float")
    with pytest.raises(ExportError, match="without"):
        write(one.model, forms, "int8")
    with pytest.raises(ExportError, match="with ranges"):
        write(one.model, forms, "float", one.ranges)
    with pytest.raises(ExportError, match="int4"):
        write(one.model, forms, "int4")
    with pytest.raises(ExportError, match="Uniform"):
        one.file(forms, "int8")
