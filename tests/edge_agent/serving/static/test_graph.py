from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_agent.serving.static.graph import OPERATORS as KNOWN
from edge_agent.serving.static.graph import check_graph
from tests.edge_agent.serving.stage.files import file_bytes, model, with_external_data
from tests.edge_agent.serving.stage.looks import WANTED, edited, refused, varint
from wire.errors import WireError


def test_a_right_file_passes_with_its_metadata():
    assert check_graph(file_bytes(), WANTED) == {"bits": "32"}


def test_every_operator_of_the_list_is_one_of_the_standard_domain():
    assert {name for name in KNOWN if not onnx.defs.has(name)} == set()
    assert not KNOWN & {"Loop", "If", "Scan", "SequenceMap", "StringNormalizer", "ImageDecoder"}


def test_external_data_are_refused():
    assert "another file" in refused(with_external_data())


def test_external_data_in_a_constant_are_refused():
    def change(made):
        held = TensorProto(name="c", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
        made.graph.node.append(helper.make_node("Constant", [], ["c"], value=held))

    assert "another file" in refused(edited(change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.functions.add(), "field 25"),
        (lambda m: m.training_info.add(), "field 20"),
        (lambda m: m.graph.sparse_initializer.add(), "field 15"),
        (lambda m: setattr(m, "ir_version", 14), "IR version 14"),
        (lambda m: setattr(m.opset_import[0], "version", 99), "opset 99"),
        (lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 1)), "domains"),
        (lambda m: setattr(m.opset_import[0], "domain", "com.microsoft"), "domains"),
        (lambda m: m.ClearField("graph"), "there is no graph"),
        (lambda m: setattr(m.graph.node[0], "op_type", "Loop"), "not on this device's list"),
        (lambda m: setattr(m.graph.node[0], "op_type", "Sigmoid"), "not in the manifest's list"),
        (lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"), "not on this device's list"),
        (lambda m: m.graph.node[1].input.__setitem__(0, "r0"), "'r0' is not there yet"),
        (lambda m: m.graph.node[2].output.__setitem__(0, "flat"), "'flat' is there already"),
        (lambda m: m.graph.node[-1].output.__setitem__(0, "other"), "no node makes the output"),
        (lambda m: m.graph.ClearField("node"), "0 nodes"),
        (lambda m: setattr(m.graph.initializer[1], "name", "w1"), "taken"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, 7), "bytes of values"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, -6), "shape"),
        (lambda m: m.graph.initializer[0].dims.__setitem__(0, 1 << 40), "shape"),
        (lambda m: m.graph.initializer[2].float_data.append(1.0), "4 values"),
        (lambda m: m.graph.initializer[2].double_data.append(1.0), "fields"),
        (lambda m: setattr(m.graph.initializer[0], "data_type", TensorProto.STRING), "type 8"),
        (lambda m: m.graph.input.add(), "2 inputs"),
        (lambda m: m.graph.output.add(), "2 outputs"),
        (lambda m: setattr(m.graph.input[0], "name", "w1"), "both an input and an initialiser"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.DOUBLE), "type 11"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[3], "dim_value", 5), "shape"),
        (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 2), "shape"),
        (lambda m: setattr(m.graph.output[0].type.tensor_type.shape.dim[1], "dim_value", 4), "shape"),
        (lambda m: m.graph.input[0].ClearField("type"), "not a tensor"),
        (lambda m: m.graph.node[0].attribute.add(g=helper.make_graph([], "g", [], [])), "field 6"),
        (lambda m: m.graph.node[0].attribute.add(sparse_tensor=onnx.SparseTensorProto()), "field 22"),
        (lambda m: setattr(m.graph.initializer[0], "name", "x" * 2000), "at most 1024"),
    ],
)
def test_what_is_wrong_is_named(change, words):
    assert words in refused(edited(change))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TensorProto.INT8, np.arange(-3, 4, dtype=np.int8)),
        (TensorProto.UINT8, np.arange(7, dtype=np.uint8)),
        (TensorProto.INT32, np.array([-1, 1 << 30, 5])),
        (TensorProto.INT64, np.array([-1, 1 << 60, 5])),
        (TensorProto.DOUBLE, np.array([0.5, 2.0])),
        (TensorProto.BOOL, np.array([True, False, True])),
    ],
)
@pytest.mark.parametrize("raw", [True, False])
def test_values_of_every_kind_are_counted(kind, values, raw):
    held = values.astype(helper.tensor_dtype_to_np_dtype(kind))
    vals = held.tobytes() if raw else held.tolist()
    right = helper.make_tensor("extra", kind, [len(values)], vals, raw=raw)
    check_graph(edited(lambda m: m.graph.initializer.append(right)), WANTED)
    right.dims[0] += 1
    refused(edited(lambda m: m.graph.initializer.append(right)))


def with_elements(bits=4, dims=(3, 5), spare=0, kind=None, ir=13, opset=25) -> bytes:
    """Returns a file that holds packed elements as well, with so many bytes too many."""
    raw = bytes(-(-int(np.prod(dims)) * bits // 8) + spare)
    held = TensorProto(name="extra", data_type=kind or {4: 21, 2: 25}[bits], dims=dims, raw_data=raw)

    def change(made):
        made.ir_version, made.opset_import[0].version = ir, opset
        made.graph.initializer.append(held)

    return edited(change)


@pytest.mark.parametrize(("kind", "bits", "ir", "opset"), [(21, 4, 10, 21), (22, 4, 10, 21), (25, 2, 13, 25),
                                                           (26, 2, 13, 25)])  # fmt: skip
@pytest.mark.parametrize("dims", [(3, 5), (2, 4), (1,), (7, 1, 3)])
def test_packed_elements_are_counted_and_need_their_versions(kind, bits, ir, opset, dims):
    check_graph(with_elements(bits, dims, 0, kind, ir, opset), WANTED)
    for spare in (-1, 1):
        assert "its shape needs" in refused(with_elements(bits, dims, spare, kind, ir, opset))
    for older in ((ir - 1, opset), (ir, opset - 1)):
        assert f"values of type {kind}" in refused(with_elements(bits, dims, 0, kind, *older))


@pytest.mark.parametrize(
    ("dims", "fields", "words"),
    [
        ([1 << 28, 1 << 28], {"raw_data": b"x"}, f"{1 << 56} values"),
        ([1 << 14, (1 << 14) + 1], {"raw_data": b"x"}, "values"),
        ([1 << 62], {"raw_data": b"x"}, "shape"),
        ([-4], {"raw_data": b""}, "shape"),
        ([1 << 20], {"raw_data": b"x"}, "1 bytes of values, its shape needs"),
        ([2], {"int32_data": [0x21]}, "in the fields [5]"),
        ([2], {}, "0 values, its shape needs 2"),
    ],
)
@pytest.mark.parametrize("kind", [21, 25])
def test_packed_elements_that_promise_what_is_not_there(kind, dims, fields, words):
    def change(made):
        made.ir_version, made.opset_import[0].version = 13, 25
        made.graph.initializer.append(TensorProto(name="extra", data_type=kind, dims=dims, **fields))

    assert words in refused(edited(change))


@pytest.mark.parametrize("kind", [8, 14, 15, 17, 18, 19, 20, 23, 24, 27, 99])
def test_elements_that_no_net_needs(kind):
    assert f"values of type {kind}" in refused(with_elements(kind=kind))


def test_packed_elements_in_a_constant_are_looked_at_too():
    def change(opset):
        def made(model):
            model.ir_version, model.opset_import[0].version = 10, opset
            held = TensorProto(name="c", data_type=21, dims=[3], raw_data=b"ab")
            model.graph.node.append(helper.make_node("Constant", [], ["c"], value=held))

        return edited(made)

    check_graph(change(21), WANTED)
    assert "values of type 21" in refused(change(20))


def test_two_graphs_are_not_merged_behind_our_back():
    data = file_bytes()
    assert "2 times" in refused(data + onnx.ModelProto(graph=model().graph).SerializeToString())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(share):
    data = file_bytes()
    refused(data[: int(share * len(data))])


def test_an_endless_nest_is_no_matter():
    data = b""
    for _ in range(2000):
        data = b"\x3a" + varint(len(data)) + data
    refused(data)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_refused_with_the_code(data):
    refused(data)


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(1, 255), st.integers(0, 3))
def test_a_changed_byte_never_makes_another_error(at, flip, cut):
    data = bytearray(file_bytes())
    data[at % len(data)] ^= flip
    data = data[: len(data) - cut]
    try:
        check_graph(bytes(data), WANTED)
    except WireError as exc:
        assert exc.code == "E-MODEL-GRAPH"


def test_what_passes_here_passes_the_official_checker():
    onnx.checker.check_model(onnx.load_from_string(file_bytes()), full_check=True)
    assert numpy_helper.to_array(model().graph.initializer[0]).shape == (6, 16)
