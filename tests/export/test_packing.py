"""Codes of 4 and 2 bits in ONNX's own types: as exact as bit planes, smaller, for newer runtimes."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.serving.policy import release
from export.forms import Plain, Table
from export.gate import check
from export.grids import PROFILES
from export.proof.operators import operators_of
from export.refused import ExportError
from export.sessions import answers, open_session
from export.store.elements import NATIVE_BITS, as_elements
from tests.export.test_variant import table_forms, weights_in

CARRIERS = {4: ("21", "10", "1.23"), 2: ("25", "13", "1.25"), 8: ("18", "8", "1.16")}
HERE = release(onnxruntime.__version__)


def old(bits):
    """Tells whether the runtime of this environment is too old for this width."""
    return release(CARRIERS[bits][2]) > HERE


def needs(bits):
    if old(bits):
        pytest.skip(f"{bits} bits need onnxruntime {CARRIERS[bits][2]}")


def told(data):
    return {one.key: one.value for one in onnx.load_model_from_string(data).metadata_props}


def types_in(data):
    """Returns the type of the stored codes of each weight."""
    held = onnx.load_model_from_string(data).graph.initializer
    return {one.name.split("/")[0]: one.data_type for one in held if one.name.endswith(("/q", "/p"))}


def gated(case, forms, profile):
    """Returns the file, once the gate let it pass and it was held against the one of bit planes."""
    arguments = case.gate(forms, profile, packing="native")
    check(**arguments)
    data, planes = arguments["data"], case.file(forms, profile)
    assert len(data) < len(planes) and operators_of(data) == operators_of(planes)
    assert np.array_equal(answers(open_session(data), case.inputs), answers(open_session(planes), case.inputs))
    for name, stored in weights_in(data).items():
        assert np.array_equal(stored, forms[name].int8 if profile == "int8" else forms[name].values())
    return data


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("bits", NATIVE_BITS)
def test_every_net_is_exact_and_smaller_than_planes(every, bits, profile):
    needs(bits)
    data = gated(every, every.forms(bits, profile), profile)
    assert set(types_in(data).values()) == {{4: 21, 2: 25}[bits]} and set(types_in(data)) == set(every.weights)
    model, facts = onnx.load_model_from_string(data), told(data)
    assert (facts["opset"], facts["ir"], facts["min_runtime"]) == CARRIERS[bits]
    assert (str(model.opset_import[0].version), str(model.ir_version)) == CARRIERS[bits][:2]
    others = {key: value for key, value in facts.items() if key not in ("opset", "ir", "min_runtime")}
    assert others.items() <= told(every.file(every.forms(bits, profile), profile)).items()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("bits", NATIVE_BITS)
def test_learned_centres_too(every, bits, profile):
    needs(bits)
    gated(every, table_forms(every, bits), profile)


@pytest.mark.parametrize("bits", NATIVE_BITS)
def test_whole_numbers_computed_in_float_too(case, bits):
    needs(bits)
    gated(case("mobile-8-16"), case("mobile-8-16").forms(bits, "int8"), "float")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("bits", [8, 6, 5, 3])
def test_other_widths_are_as_they_were(every, bits, profile):
    forms = every.forms(bits, profile)
    assert every.file(forms, profile, packing="native") == every.file(forms, profile)


@pytest.mark.parametrize("bits", NATIVE_BITS)
def test_an_older_runtime_refuses_the_file_by_its_versions(case, bits):
    one = case("mlp-16")
    arguments = one.gate(one.forms(bits, "float"), "float", packing="native")
    if old(bits):
        with pytest.raises(ExportError, match="refuses the file"):
            check(**arguments)
    else:
        assert check(**arguments).ties == 0


@pytest.mark.parametrize("profile", PROFILES)
def test_widths_by_layer_are_native_where_they_can_be_and_need_the_newest(case, profile):
    one = case("leaf")
    for widths, widest in (((8, 6, 5, 4), 4), ((3, 4, 4, 8), 4), ((2, 5, 4, 8), 2), ((8, 8, 6, 3), 8)):
        needs(widest)
        each = dict(zip(one.weights, widths, strict=True))
        forms = {name: one.forms(bits, profile)[name] for name, bits in each.items()}
        arguments = one.gate(forms, profile, packing="native")
        check(**arguments)
        stored = types_in(arguments["data"])
        assert [stored.get(name, 3) for name in each] == [
            {4: 21, 2: 25, 8: 3 if profile == "int8" else 2}.get(bits, 2) for bits in widths
        ]
        facts = told(arguments["data"])
        assert (facts["opset"], facts["ir"], facts["min_runtime"]) == CARRIERS[widest]


def test_a_layer_that_stays_float_and_a_form_that_other_widths_share(case):
    needs(4)
    one = case("cnn-5-9")
    forms = one.forms(4, "float")
    forms["out.weight"] = Plain(one.weights["out.weight"])
    forms["conv1.weight"] = dataclasses.replace(forms["conv1.weight"], spread=True)
    assert sorted(types_in(gated(one, forms, "float")).items()) == [("conv1.weight", 2), ("conv2.weight", 21)]


def test_equal_arguments_give_equal_bytes_and_odd_ones_are_refused(case):
    one = case("mobile-8-16")
    forms = one.forms(4, "int8")
    backwards = dict(reversed(forms.items()))
    assert one.file(forms, "int8", packing="native") == one.file(backwards, "int8", packing="native")
    with pytest.raises(ExportError, match="packing 'int4'"):
        one.file(forms, "int8", packing="int4")


def changed(data, change):
    model = onnx.load_model_from_string(data)
    change(model.graph, {tensor.name: tensor for tensor in model.graph.initializer})
    return model.SerializeToString()


def refused(arguments, reason, data):
    with pytest.raises(ExportError, match=reason):
        check(**{**arguments, "data": data})


@pytest.mark.parametrize("profile", PROFILES)
def test_the_gate_sees_a_changed_code_and_a_wrong_length(case, profile):
    needs(4)
    one = case("cnn-5-9")
    arguments = one.gate(one.forms(4, profile), profile, packing="native")

    def flip(graph, tensors):
        tensors["out.weight/q"].raw_data = bytes(byte ^ 0x33 for byte in tensors["out.weight/q"].raw_data)

    def shorten(graph, tensors):
        tensors["out.weight/q"].raw_data = tensors["out.weight/q"].raw_data[:-1]

    refused(arguments, "differ from", changed(arguments["data"], flip))
    refused(arguments, "checker|refuses", changed(arguments["data"], shorten))


def test_the_gate_refuses_elements_that_are_dequantised_or_cast_at_every_call(case):
    needs(4)
    one = case("cnn-5-9")
    arguments = one.gate(one.forms(4, "float"), "float", packing="native")
    scale = one.forms(4, "float")["out.weight"].scale

    def dequantise(graph, tensors):
        maker = next(node for node in graph.node if "out.weight" in node.output)
        graph.initializer.append(onnx.numpy_helper.from_array(scale, "s"))
        maker.CopyFrom(onnx.helper.make_node("DequantizeLinear", ["out.weight/q", "s"], ["out.weight"], axis=0))

    def loosen(graph, tensors):
        tensor = tensors["out.weight/q"]
        graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))

    refused(arguments, "unpacked at every call.*DequantizeLinear", changed(arguments["data"], dequantise))
    refused(arguments, "unpacked at every call.*Cast", changed(arguments["data"], loosen))


@given(st.sampled_from(NATIVE_BITS), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_elements_come_back_as_they_went(bits, shape, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, shape).astype(np.uint8)
    tensor = as_elements("q", codes, bits)
    assert list(tensor.dims) == shape and len(tensor.raw_data) == -(-codes.size * bits // 8)
    each = np.frombuffer(tensor.raw_data, np.uint8)[:, None] >> np.arange(0, 8, bits, dtype=np.uint8) & (2**bits - 1)
    flat = each.reshape(-1)
    assert np.array_equal(flat[: codes.size], codes.reshape(-1)) and not flat[codes.size :].any()


def test_elements_are_those_of_the_standard():
    codes = np.arange(7, dtype=np.uint8)
    assert np.array_equal(onnx.numpy_helper.to_array(as_elements("q", codes, 4)).astype(np.uint8), codes)
    assert as_elements("q", codes, 4).raw_data == bytes([0x10, 0x32, 0x54, 0x06])
    assert as_elements("q", codes % 4, 2).raw_data == bytes([0b11100100, 0b00100100])
    with pytest.raises(ExportError, match="does not fit"):
        as_elements("q", codes, 2)


def test_a_table_of_one_bit_stays_in_planes(case):
    one = case("mlp-16")
    forms = table_forms(one, 1)
    assert all(isinstance(form, Table) for form in forms.values())
    assert one.file(forms, "float", packing="native") == one.file(forms, "float")
