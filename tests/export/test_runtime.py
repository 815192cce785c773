"""What ONNX Runtime does beside answering: it leaves nothing behind and sends nothing, and takes memory for a file."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.proof import memory
from export.proof.memory import memory_of
from wire.pipe import reset_peak_memory

USES = {
    "the coordinator": "import export.sessions",
    "the board": """
from edge_agent.serving.session import open_session
from wire.errors import WireError
try:
    open_session(b"no model", {})
except WireError as exc:
    assert exc.code == "E-MODEL-LOAD", exc
""",
}

ROWS = np.ones((64, 16), np.float32)


@pytest.mark.parametrize("use", USES)
def test_a_fresh_home_stays_empty(use, tmp_path):
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    kept = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    places = {"HOME": str(home), "TMPDIR": str(temporary), "XDG_CACHE_HOME": str(home / "cache")}
    subprocess.run([sys.executable, "-c", USES[use]], check=True, env=kept | places, timeout=60)
    assert [*home.rglob("*"), *temporary.rglob("*")] == []


def file_of(width):
    weight = numpy_helper.from_array(np.ones((16, width), np.float32), "w")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", n]) for name, n in (("x", 16), ("y", 1))]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("ReduceSum", ["h"], ["s"], keepdims=1),
             helper.make_node("Reshape", ["s", "to"], ["y"])]  # fmt: skip
    stored = [weight, numpy_helper.from_array(np.array([-1, 1], np.int64), "to")]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()


@pytest.mark.skipif(reset_peak_memory() != "VmHWM", reason="this kernel resets no peak, so it is unknown")
def test_a_large_file_takes_what_its_weights_take_and_a_small_one_little():
    small, large = (memory_of(file_of(width), ROWS) for width in (8, 1 << 19))
    assert 0 < small < 16e6
    assert large - small > 4 * 16 * (1 << 19) * 0.9


def test_a_child_that_dies_leaves_it_unknown(capfd):
    assert memory_of(b"no model", ROWS) is None
    assert "event=memory-unknown" in capfd.readouterr().err


def test_where_the_peak_cannot_be_reset_the_memory_is_unknown(monkeypatch):
    monkeypatch.setattr(memory, "empty_runtime", lambda: (1 << 20, "ru_maxrss"))
    assert memory._taken(list(ROWS.shape), ROWS.tobytes() + file_of(8)) is None
