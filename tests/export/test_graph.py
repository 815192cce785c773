"""The float graph: parameters by name, whatever their values; the net's own answers; versions as promised."""

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export.graph import IR_VERSION, OPSET, float_graph, replaced, weighted_nodes, weights_of
from export.refused import ExportError
from export.sessions import answers, open_session
from models import archs
from models.archs import Arch, spec_of, tensors_of
from models.init import frozen, initial
from models.nets import build, load
from wire.errors import WireError


def values_of(model):
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_versions_names_and_one_file(every):
    model = every.model
    assert model.ir_version == IR_VERSION == 8
    assert [(one.domain, one.version) for one in model.opset_import] == [("", OPSET)] == [("", 18)]
    assert [one.name for one in model.graph.input] == ["input"]
    assert [one.name for one in model.graph.output] == ["output"]
    onnx.checker.check_model(model, full_check=True)


def test_every_parameter_is_there_under_its_name_with_its_values(every):
    held = values_of(every.model)
    for tensor in tensors_of(every.spec.arch, every.spec.input, every.spec.outputs):
        assert np.array_equal(held[tensor.name].reshape(tensor.shape), every.params[tensor.name])
    assert set(every.weights) == {tensor.name for tensor in every.spec.trainable if len(tensor.shape) > 1}
    assert all(value.shape == every.params[name].shape for name, value in every.weights.items())


def test_it_answers_as_the_net_does_for_any_batch(every):
    net = build(every.spec)
    load(net, every.params)
    session = open_session(every.model.SerializeToString())
    for count in (1, 16):
        with torch.inference_mode():
            wanted = net.eval()(torch.from_numpy(every.inputs[:count])).numpy()
        assert np.abs(answers(session, every.inputs[:count]) - wanted).max() < 1e-5


def test_equal_parameters_stay_apart(case):
    spec = case("resnet8-8").spec
    zeros = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in spec.trainable}
    model = float_graph(spec, zeros)
    assert {tensor.name for tensor in spec.trainable} <= set(values_of(model))
    other = case("resnet8-8").model
    assert [list(node.input) for node in model.graph.node] == [list(node.input) for node in other.graph.node]


def test_frozen_tensors_are_rebuilt_or_given(case):
    spec = case("cnn-5-9", ("conv1.*",)).spec
    model = float_graph(spec, initial(spec))
    assert np.array_equal(weights_of(model)["conv1.weight"], frozen(spec)["conv1.weight"])
    other = {name: value + np.float32(1) for name, value in frozen(spec).items()}
    assert np.array_equal(weights_of(float_graph(spec, initial(spec), other))["conv1.weight"], other["conv1.weight"])


def test_equal_arguments_give_equal_bytes(case):
    one = case("mobile-8-16")
    assert float_graph(one.spec, one.params).SerializeToString() == one.model.SerializeToString()


def test_replaced_changes_a_copy(case):
    one = case("mlp-16")
    other = replaced(one.model, {"out.weight": np.zeros_like(one.weights["out.weight"])})
    assert not weights_of(other)["out.weight"].any()
    assert weights_of(one.model)["out.weight"].any()
    assert np.array_equal(weights_of(other)["fc1.weight"], one.weights["fc1.weight"])


def test_changes_of_memory_order_leave_no_node(case):
    assert {"Cast", "Identity"}.isdisjoint(node.op_type for node in case("cnn-5-9").model.graph.node)


def test_casts_that_change_a_value_stay(monkeypatch):
    spec, params = own(monkeypatch, Cast)
    model = float_graph(spec, params)
    assert [node.op_type for node in model.graph.node] == ["Gemm", "Cast", "Cast", "Relu"]
    x = np.linspace(-9, 9, 12, dtype=np.float32).reshape(3, 4)
    found = answers(open_session(model.SerializeToString()), x)
    assert np.array_equal(found, np.trunc(found))
    assert len(np.unique(found)) > 2


def test_wrong_tensors_are_refused(case):
    spec, params = case("mlp-16").spec, case("mlp-16").params
    with pytest.raises(WireError, match="missing or too many"):
        float_graph(spec, {})
    with pytest.raises(WireError, match=r"fc1\.bias"):
        float_graph(spec, {**params, "fc1.bias": np.zeros(3, np.float32)})


class Cut(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(5, 4))

    def forward(self, x):
        return nn.functional.linear(x, self.weight[:4])


class Turned(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(4, 4))

    def forward(self, x):
        return x @ self.weight.T


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x):
        return self.first(torch.relu(self.first(x)))


class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x):
        return torch.linalg.inv(self.first(x)[:, :, None] * x[:, None, :])[:, 0]


class Cast(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x):
        steps = self.first(x.float().contiguous()).to(torch.int32)
        return torch.relu(steps.to(torch.float32).float())


def own(monkeypatch, net):
    monkeypatch.setitem(archs._BUILT_IN, "own", Arch(build=lambda shape, outputs, args: net()))
    spec = spec_of("own", (4,), 4, 1)
    return spec, initial(spec)


def test_a_parameter_that_is_transposed_or_shared_keeps_its_values(monkeypatch):
    for net in (Turned, Twice):
        spec, params = own(monkeypatch, net)
        made = build(spec)
        load(made, params)
        x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
        found = answers(open_session(float_graph(spec, params).SerializeToString()), x)
        assert np.abs(found - made(torch.from_numpy(x)).detach().numpy()).max() < 1e-6


def test_what_cannot_be_written_is_refused_with_the_reason(monkeypatch):
    spec, params = own(monkeypatch, Cut)
    with pytest.raises(ExportError, match="changed before it is used"):
        float_graph(spec, params)
    spec, params = own(monkeypatch, Odd)
    with pytest.raises(ExportError, match="cannot be written"):
        float_graph(spec, params)


def test_weighted_nodes_carry_the_names_of_their_layers(case):
    assert [node.name for node in weighted_nodes(case("cnn-5-9").model)] == ["conv1", "conv2", "out"]
