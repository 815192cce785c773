"""Linear layers however torch writes them: without bias, over time steps, three on one value; and what gets no form."""

from __future__ import annotations

import json
from functools import partial
from math import prod

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export.graph import float_graph, left_of, weights_of
from export.ladder.drafts import Wish
from export.ladder.make import make_ladder
from export.ladder.report import markdown
from export.ladder.source import Source
from export.proof.operators import operators_of
from export.refused import ExportError
from export.sessions import answers, open_session
from models import archs
from models.archs import Arch, spec_of
from models.dataset import Dataset
from models.init import initial
from models.nets import build, load
from wire.bits import Bits
from wire.pieces.bundle import cut, width_of

STEPS, FEATURES, OUTPUTS = 5, 8, 3
WIDTHS = (8, 6, 5, 4, 3, 2)


class Attention(nn.Module):
    """Three layers on one value, two of them without bias; a position that is a parameter."""

    def __init__(self):
        super().__init__()
        self.q, self.k = (nn.Linear(FEATURES, FEATURES, bias=False) for _ in range(2))
        self.v, self.out = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, OUTPUTS)
        self.place = nn.Parameter(torch.zeros(STEPS, FEATURES))

    def forward(self, x):
        x = x + self.place
        share = torch.softmax(self.q(x) @ self.k(x).transpose(1, 2), -1)
        return self.out((share @ self.v(x)).mean(1))


class Unsized(nn.Module):
    """A Linear on a value of which two sides are not known when the graph is written."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(4, 6), nn.Linear(60, OUTPUTS)

    def forward(self, x):
        return self.out(torch.relu(self.first(x.view(x.shape[0], -1, 4))).reshape(x.shape[0], -1))


class Turned(nn.Module):
    """A Linear whose value is turned, and read as it is as well."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(STEPS, 4), nn.Linear(FEATURES, OUTPUTS)

    def forward(self, x):
        found = self.first(x.transpose(1, 2))
        return self.out((torch.relu(found) - found).amax(2))


class Shared(nn.Module):
    """The same layer twice."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(FEATURES, FEATURES), nn.Linear(FEATURES, OUTPUTS)

    def forward(self, x):
        return self.out(self.first(torch.relu(self.first(x))).mean(1))


class Tied(nn.Module):
    """One parameter that an Embedding and a Linear read."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(16, FEATURES), nn.Linear(16, OUTPUTS)

    def forward(self, x):
        read = self.table((x[:, :, 0] * 15).long())
        return self.out(torch.relu(nn.functional.linear(read, self.table.weight)).mean(1))


class Upside(nn.Module):
    """A convolution that is transposed, which has its inputs first."""

    def __init__(self):
        super().__init__()
        self.up, self.out = nn.ConvTranspose1d(STEPS, 4, 3), nn.Linear(4, OUTPUTS)

    def forward(self, x):
        return self.out(torch.relu(self.up(x)).mean(2))


class Looked(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(16, FEATURES), nn.Linear(STEPS * FEATURES, OUTPUTS)

    def forward(self, x):
        return self.out(self.table((x[:, :, 0] * 15).long()).flatten(1))


class Inputs(nn.Module):
    """Weights with their inputs first: by MatMul, by Gemm, and turned for a Linear."""

    def __init__(self, way):
        super().__init__()
        self.way, self.out = way, nn.Linear(FEATURES, OUTPUTS)
        self.weight = nn.Parameter(torch.zeros(STEPS * FEATURES, FEATURES))
        self.bias = nn.Parameter(torch.zeros(FEATURES))

    def forward(self, x):
        x = x.flatten(1)
        if self.way == "gemm":
            return self.out(torch.relu(torch.addmm(self.bias, x, self.weight)))
        if self.way == "turned":
            return self.out(torch.relu(nn.functional.linear(x, self.weight.t(), self.bias)))
        return self.out(torch.relu(x @ self.weight + self.bias))


class Only(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(STEPS * FEATURES, OUTPUTS))

    def forward(self, x):
        return x.flatten(1) @ self.table


def flat(*layers):
    return nn.Sequential(nn.Flatten(), *layers)


NETS = {
    "free": lambda: flat(nn.Linear(40, 64, bias=False), nn.ReLU(), nn.Linear(64, OUTPUTS)),
    "all-free": lambda: flat(nn.Linear(40, 64, bias=False), nn.ReLU(), nn.Linear(64, OUTPUTS, bias=False)),
    "single": lambda: flat(nn.Linear(40, OUTPUTS)),
    "steps": lambda: nn.Sequential(
        nn.Linear(FEATURES, 48), nn.ReLU(), nn.Linear(48, 16), nn.ReLU(), flat(nn.Linear(16 * STEPS, OUTPUTS))
    ),
    "attention": Attention,
    "unsized": Unsized,
    "turned": Turned,
    "shared": Shared,
    "tied": Tied,
}
LEFT = {
    "upside": (Upside, {"up.weight": STEPS * 4 * 3}, 4 * OUTPUTS),
    "looked": (Looked, {"table.weight": 16 * FEATURES}, STEPS * FEATURES * OUTPUTS),
    "matmul": (partial(Inputs, "matmul"), {"weight": STEPS * FEATURES * FEATURES}, FEATURES * OUTPUTS),
    "gemm": (partial(Inputs, "gemm"), {"weight": STEPS * FEATURES * FEATURES}, FEATURES * OUTPUTS),
    "turned": (partial(Inputs, "turned"), {"weight": STEPS * FEATURES * FEATURES}, FEATURES * OUTPUTS),
}


@pytest.fixture
def source(monkeypatch):
    """Returns a function from a net to a Source whose examples it answers itself."""

    def made(net):
        monkeypatch.setitem(archs._BUILT_IN, "own", Arch(build=lambda shape, outputs, args: net()))
        spec = spec_of("own", (STEPS, FEATURES), OUTPUTS, 1)
        bits = Bits.of("own", 1)
        params = {name: value + (bits.uniform(value.size).reshape(value.shape) - np.float32(0.5)) * np.float32(0.5)
                  for name, value in initial(spec).items()}  # fmt: skip
        x = bits.uniform(100 * prod(spec.input)).reshape(100, *spec.input)
        y = Source(spec, params, "own").answers({}, x).argmax(1).astype(np.int64)
        return Source(spec, params, "own", Dataset(x, y), 60)

    return made


@pytest.fixture
def graph(source):
    def made(net):
        one = source(net)
        return float_graph(one.spec, one.params)

    return made


def kinds(model):
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("name", NETS)
def test_every_linear_is_a_gemm_that_answers_as_the_net_does(name, source):
    one = source(NETS[name])
    model = float_graph(one.spec, one.params)
    onnx.checker.check_model(model, full_check=True)
    assert set(weights_of(model)) == {key for key, value in one.params.items() if value.ndim > 1} - {"place"}
    assert all(value.shape == one.params[key].shape for key, value in weights_of(model).items())
    net = build(one.spec)
    load(net, one.params)
    session = open_session(model.SerializeToString())
    for count in (1, 7):
        with torch.inference_mode():
            wanted = net.eval()(torch.from_numpy(one.checks[:count])).numpy()
        assert np.abs(answers(session, one.checks[:count]) - wanted).max() < 1e-5


def test_layers_over_time_stay_in_rows_between_them(graph):
    assert kinds(graph(NETS["steps"])) == ["Reshape", "Gemm", "Relu", "Gemm", "Relu", "Reshape", "Flatten", "Gemm"]
    read = [node.input[0] for node in graph(Attention).graph.node if node.op_type == "Gemm"]
    assert read[0] == read[1] == read[2], "one value was laid out three times"


def test_only_what_is_the_transpose_of_a_parameter_is_turned(graph):
    assert kinds(graph(LEFT["matmul"][0])) == ["Flatten", "MatMul", "Add", "Relu", "Gemm"]


@pytest.mark.parametrize("name", NETS)
def test_every_width_of_both_profiles_passes_the_gate(name, source, tmp_path):
    wish = Wish(WIDTHS if name in ("all-free", "steps") else (8, 3), rounds=1)
    report = make_ladder(source(NETS[name]), wish, tmp_path)
    assert report["refused"] == []
    assert [one["name"] for one in report["variants"]] == [f"{p}-{b}" for p in wish.profiles for b in wish.bits]
    for one in report["variants"]:
        formed = {key: bits for key, bits in one["widths"].items() if key not in report["left_float"]}
        assert set(formed.values()) == {int(one["name"].rpartition("-")[2])}
        found = operators_of((tmp_path / one["file"]).read_bytes())
        names = {"int8": ("QGemm",), "float": ("Gemm", "FusedGemm")}[one["profile"]]
        assert sum(found.get(name, 0) for name in names) >= len(formed)


def test_weights_without_bias_take_as_few_bytes_as_their_bits_say(source, tmp_path):
    report = make_ladder(source(NETS["all-free"]), Wish((8, 4, 2), rounds=1), tmp_path)
    weights = 40 * 64 + 64 * OUTPUTS
    for one in report["variants"]:
        assert one["bytes"] < weights * one["bits"] / 8 + 3000 < report["float"]["bytes"]
    assert report["float"]["bytes"] > 4 * weights
    assert report["left_float"] == {}


@pytest.mark.parametrize("name", LEFT)
def test_what_no_form_reaches_counts_as_32_bits_and_is_named(name, source, tmp_path):
    net, left, reached = LEFT[name]
    report = make_ladder(source(net), Wish((4,), rounds=1), tmp_path)
    assert report["refused"] == []
    assert report["left_float"] == left
    ((weight, count),) = left.items()
    for one in report["variants"]:
        assert one["bits"] == (32 * count + 4 * reached) / (count + reached)
        assert one["widths"] == {"out.weight": 4, weight: 32}
        file = onnx.load_model_from_string((tmp_path / one["file"]).read_bytes())
        assert json.loads({p.key: p.value for p in file.metadata_props}["bits"]) == one["widths"]
    assert f"count as 32 bits: `{weight}` ({count} values)" in markdown(report)


def test_a_net_that_no_form_reaches_is_refused_in_words(source, tmp_path):
    with pytest.raises(ExportError, match=r"no weights that can be stored in few bits.*'table'"):
        make_ladder(source(Only), Wish((4,), rounds=1), tmp_path)
    with pytest.raises(ExportError, match="none"):
        weights_of(onnx.ModelProto())
    assert left_of(onnx.ModelProto()) == {}


def test_a_bundle_is_cut_by_its_files_though_the_bits_are_no_width(source, tmp_path):
    report = make_ladder(source(Attention), Wish((8, 4), ("float",), nested=True, rounds=1), tmp_path)
    bundle = (tmp_path / "float.bundle").read_bytes()
    for one, width in zip(report["variants"], (8, 4), strict=True):
        assert one["bits"] > width
        prefix = bundle[: one["prefix"]]
        assert width_of(prefix, one["sha256"]) == width
        assert cut(prefix, width) == (tmp_path / one["file"]).read_bytes()
