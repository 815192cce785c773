"""The probe with real children: what they measure, and how each of their deaths is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import pytest
from onnx import numpy_helper

from edge_agent.config import DataConfig, ModelConfig
from edge_agent.meters.found import find_meter
from edge_agent.meters.power import PowerMeter, trapezoid
from edge_agent.serving import probe_child
from edge_agent.serving.probe import Probe, probe_header
from tests.edge_agent.boards import config
from tests.edge_agent.serving.stage.files import (
    INPUT,
    Publisher,
    file_bytes,
    model,
    outputs_of,
    with_external_data,
    with_nan,
)
from wire.errors import StateError, WireError
from wire.messages.golden import encode_golden

WAIT_S = 60.0
FAILING = "tests.edge_agent.serving.stage.failing_child"


@pytest.fixture
def job(tmp_path):
    """Returns a function that gives the header of a probe of a file."""
    publisher = Publisher(tmp_path)

    def made(file=None, answers=None, free=None, golden=None, **changes):
        data = file_bytes() if file is None else file
        manifest = publisher.manifest(1, {"float-32": data}, answers=answers or {"float-32": outputs_of(file_bytes())})
        if golden is not None:
            manifest = replace(manifest, golden=publisher.keep(golden))
        (tmp_path / "file").write_bytes(data)
        (tmp_path / "golden").write_bytes(publisher.blobs[manifest.golden])
        device = config(tmp_path / "state", **changes)
        variant = manifest.variants[0]
        return probe_header(
            device, manifest, variant, path=tmp_path / "file", golden=tmp_path / "golden", free_bytes=free
        )

    return made


def run(header, module=None):
    probe = Probe(0, module) if module else Probe(0)
    probe.start(header, monotonic())
    ends_s = monotonic() + WAIT_S
    while (found := probe.poll(monotonic())) is None:
        assert monotonic() < ends_s
        sleep(0.01)
    assert not probe.busy
    return found, probe


def code_of(header) -> str:
    return probe_child.answer(header)["code"]


def test_a_right_file_is_measured(job):
    found, probe = run(job())
    assert (found.code, found.reason) == ("", "")
    assert found.latency_ms > 0
    assert found.load_ms > 0
    assert 0 <= found.memory_bytes < 200_000_000
    assert found.accuracy is None
    meter = find_meter()
    assert found.energy_source == (meter.source if meter else "")
    assert (found.energy_mj is None) or meter
    assert probe.options == {}


def test_where_there_is_a_meter_an_inference_has_its_joules(job, monkeypatch):
    monkeypatch.setattr(probe_child, "_METERED_S", 0.5)
    meter = PowerMeter("ina219", lambda: (5.0,), trapezoid)
    monkeypatch.setattr(probe_child, "find_meter", lambda: meter)
    found = probe_child.answer(job())
    assert found["energy_source"] == "ina219"
    assert 0 < found["energy_mj"] < 2500  # 5 W for half a second, over more than one inference
    broken = replace(meter, read=iter([(5.0,)] + [None] * 1000).__next__)
    monkeypatch.setattr(probe_child, "find_meter", lambda: broken)
    found = probe_child.answer(job())
    assert (found["code"], found["energy_mj"], found["energy_source"]) == ("", None, "ina219")


@pytest.mark.parametrize("fault", [RuntimeError("can't start new thread"), MemoryError(), OSError("no access")])
@pytest.mark.parametrize("where", ["find_meter", "Metering"])
def test_a_meter_that_fails_costs_the_joules_and_not_the_model(job, monkeypatch, where, fault):
    def fails(*words):
        raise fault

    monkeypatch.setattr(probe_child, "find_meter", lambda: PowerMeter("ina219", lambda: (5.0,), trapezoid))
    monkeypatch.setattr(probe_child, where, fails)
    found = probe_child.answer(job())
    assert (found["code"], found["energy_mj"], found["energy_source"]) == ("", None, "")
    assert found["latency_ms"] > 0


def test_a_model_that_fails_while_it_is_metered_has_failed(job, monkeypatch):
    class Session:
        def run(self, *words):
            raise MemoryError

    monkeypatch.setattr(probe_child, "find_meter", lambda: PowerMeter("ina219", lambda: (5.0,), trapezoid))
    monkeypatch.setattr(probe_child, "run_rows", lambda session, rows: session.run(rows))
    with pytest.raises(WireError) as caught:
        probe_child._energy_mj(Session(), None, 30.0)
    assert caught.value.code == "E-MODEL-LOAD"


@pytest.mark.parametrize("number", ["SIGILL", "SIGSEGV", "SIGABRT", "SIGBUS"])
def test_a_crash_is_a_code_and_this_process_lives(job, monkeypatch, number):
    monkeypatch.setenv("BITFLEET_TEST_DIES", "float-32")
    monkeypatch.setenv("BITFLEET_TEST_DEATH", number)
    found, _ = run(job(), FAILING)
    assert found.code == "E-MODEL-CRASH"
    assert number in found.reason


def test_a_kill_from_outside_is_memory_and_no_fault_of_the_file(job, monkeypatch):
    monkeypatch.setenv("BITFLEET_TEST_DIES", "float-32")
    monkeypatch.setenv("BITFLEET_TEST_DEATH", "SIGKILL")
    found, _ = run(job(), FAILING)
    assert (found.code, "SIGKILL" in found.reason) == ("E-MEMORY", True)


@pytest.mark.parametrize(
    ("death", "code"), [("exit", "E-MODEL-CRASH"), ("sleep", "E-MODEL-TIMEOUT"), ("spin", "E-MODEL-TIMEOUT")]
)
def test_other_ends(job, monkeypatch, death, code):
    monkeypatch.setattr("edge_agent.serving.probe._SLACK_S", 2.0)
    monkeypatch.setenv("BITFLEET_TEST_DIES", "float-32")
    monkeypatch.setenv("BITFLEET_TEST_DEATH", death)
    found, _ = run(job(model=ModelConfig(probe_s=2.0)), FAILING)
    assert found.code == code


def test_a_child_that_cannot_be_started(job, monkeypatch):
    monkeypatch.setattr("wire.pipe.sys.executable", "/nowhere/python")
    probe = Probe(0)
    with pytest.raises(StateError, match="no child process could be started"):
        probe.start(job(), 0.0)
    assert not probe.busy


def test_limits_on_memory_end_the_child_not_us(job):
    made = model(width=400_000)
    data = made.SerializeToString()
    found, _ = run(job(data, {"float-32": outputs_of(data)}, free=16_000_000))
    assert found.code in ("E-MODEL-LOAD", "E-MODEL-CRASH")


@pytest.mark.parametrize(
    ("free", "code"), [(None, "E-MODEL-GRAPH"), (1 << 40, "E-MODEL-GRAPH"), (1 << 20, "E-MODEL-LOAD")]
)
def test_a_file_that_takes_much_memory_to_look_at_is_wrong_unless_little_is_free(job, monkeypatch, free, code):
    monkeypatch.setenv("BITFLEET_TEST_DIES", "float-32")
    monkeypatch.setenv("BITFLEET_TEST_DEATH", "hog")
    found, _ = run(job(free=free), FAILING)
    assert (found.code, "more memory" in found.reason) == (code, True)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (with_nan(), "E-MODEL-NAN"),
        (with_external_data(), "E-MODEL-GRAPH"),
        (file_bytes()[:-40], "E-MODEL-GRAPH"),
        (file_bytes(2), "E-MODEL-GOLDEN"),
    ],
)
def test_each_fault_has_its_code(job, data, code):
    assert code_of(job(data)) == code


def test_what_passes_the_static_check_and_does_not_load(job):
    made = model()
    made.graph.node[1].attribute[0].name = "transQ"
    assert code_of(job(made.SerializeToString())) == "E-MODEL-LOAD"


def test_what_loads_and_does_not_run(job):
    made = model()
    made.graph.initializer.append(numpy_helper.from_array(np.array([5, 5, 5, 5], np.int64), "shape"))
    made.graph.node.insert(0, made.graph.node[0])
    made.graph.node[0].op_type, made.graph.node[0].output[0] = "Flatten", "unused"
    made.graph.node[0].input[0] = "input"
    made.graph.node[1].CopyFrom(made.graph.node[0])
    made.graph.node[1].op_type = "Reshape"
    made.graph.node[1].ClearField("attribute")
    made.graph.node[1].input.append("shape")
    made.graph.node[1].output[0] = "flat"
    header = job(made.SerializeToString()) | {"operators": ["Flatten", "Reshape", "Gemm", "Relu"]}
    assert code_of(header) == "E-MODEL-LOAD"


def test_another_answer_within_the_tolerance_is_still_another_answer(job):
    right = outputs_of(file_bytes())
    near = right.copy()
    near[0, (right[0].argmax() + 1) % 3] = right[0].max() + 1e-4
    assert code_of(job(answers={"float-32": near}) | {"tolerance": 100.0}) == "E-MODEL-GOLDEN"


@pytest.mark.parametrize(
    ("golden", "code"),
    [
        (b"garbage", "E-FRAME"),
        (encode_golden(np.zeros((2, *INPUT), np.float32), {"other": np.zeros((2, 3))}), "E-MODEL-GOLDEN"),
        (encode_golden(np.zeros((2, 1, 5, 5), np.float32), {"float-32": np.zeros((2, 3))}), "E-MODEL-GOLDEN"),
        (encode_golden(np.zeros((2, *INPUT), np.float32), {"float-32": np.zeros((2, 4))}), "E-MODEL-GOLDEN"),
    ],
)
def test_golden_answers_that_are_none(job, golden, code):
    assert code_of(job(golden=golden)) == code


@pytest.mark.parametrize("name", ["file", "golden"])
def test_a_copy_that_went_bad_says_nothing_of_the_model(job, tmp_path, name):
    header = job()
    (tmp_path / name).write_bytes(b"rot")
    assert code_of(header) == "E-BLOB"
    (tmp_path / name).unlink()
    assert code_of(header) == "E-BLOB"


def test_a_missing_runtime_is_named(job, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    found = probe_child.answer(job())
    assert found["code"] == "E-INSTALL"
    assert "extra `infer`" in found["reason"]


def test_one_example_at_a_time_where_the_file_wants_that(job):
    made = model()
    for end in (made.graph.input[0], made.graph.output[0]):
        end.type.tensor_type.shape.dim[0].dim_value = 1
    assert code_of(job(made.SerializeToString())) == ""


def with_options(text):
    made = model()
    entry = made.metadata_props.add()
    entry.key, entry.value = "session_options", text
    return made.SerializeToString()


def test_session_options_only_from_the_short_list(job):
    assert probe_child.answer(job(with_options('{"session.disable_quant_qdq": "1"}')))["options"] == {
        "session.disable_quant_qdq": "1"
    }
    for text in ('{"session.load_model_format": "ORT"}', '{"session.disable_quant_qdq": "7"}', "[]", "{", '"x"'):
        assert code_of(job(with_options(text))) == "E-MODEL-GRAPH"


def test_accuracy_on_the_devices_own_held_out_examples(job, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    x = np.random.default_rng(5).normal(size=(400, *INPUT)).astype(np.float32)
    y = outputs_of(file_bytes(), x).argmax(1)
    y[:100] = (y[:100] + 1) % 3
    np.savez(folder / "a.npz", x=x, y=y)
    data = DataConfig("digits", folder=Path(folder), held_out=0.25)
    found = probe_child.answer(job(data=data))
    assert 60 < found["examples"] < 140
    assert 0.6 < found["accuracy"] < 0.9
    assert probe_child.answer(job(data=replace(data, held_out=0.0)))["accuracy"] is None


def test_held_out_examples_that_are_not_there_leave_accuracy_unknown(job, tmp_path, capfd):
    found = probe_child.answer(job(data=DataConfig("digits", folder=tmp_path / "none", held_out=0.5)))
    assert (found["code"], found["accuracy"]) == ("", None)
    assert "no-held-out-data" in capfd.readouterr().err
