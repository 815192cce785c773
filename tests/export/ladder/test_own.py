"""A device's own model: from its memory file to ONNX files that answer as it does on the device."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.kept.memory import memory_path
from edge_agent.training.personal import held_out
from edge_agent.training.recall import remember
from export.ladder.own import read_own
from export.refused import ExportError
from export.sessions import answers, open_session
from models.archs import spec_of
from tests.edge_agent.training.personal_runs import KEY, SPEC, digits, run
from wire.errors import BitfleetError, ConfigError, StateError


def trained(folder, **own):
    """Returns the memory file of a device after two rounds, and the metrics that it reported."""
    memory = {}
    for number in range(2):
        found = run(memory=memory, key=(KEY[0], number, *KEY[2:]), warm_rounds=0, distil=0.3, **own)
        memory = found.memory
    remember(folder, "run-7", 1, memory, found.own)
    return memory_path(folder, "run-7", 1), found.metrics


@pytest.mark.parametrize("own", [
    {"centres": 2, "skip": []}, {"centres": 4, "skip": []}, {"centres": 3, "skip": [], "arch": "mlp-24"},
])  # fmt: skip
@pytest.mark.parametrize("profile", ["float", "int8"])
def test_the_file_is_as_good_as_the_device_said(own, profile, tmp_path, export):
    path, metrics = trained(tmp_path, **own)
    source = read_own(path, "digits", 64)
    assert (source.run[:10], source.model, source.spec.arch) == ("run-7-own-", "digits", own.get("arch", SPEC.arch))
    report, out = export(source, bits=(), profiles=(profile,))
    (entry,) = report["variants"]
    assert entry["name"] == f"{profile}-centres"
    assert set(entry["widths"].values()) == {1 if own["centres"] == 2 else 2}
    _, held = held_out(digits(), 0.2, KEY)
    found = answers(open_session((out / entry["file"]).read_bytes()), held.x)
    said = metrics["accuracy_personal"]
    correct = float((found.argmax(1) == held.y).mean())
    assert correct == pytest.approx(said, abs=1e-9 if profile == "float" else 1.01 / len(held))


def test_one_in_full_precision_gets_the_usual_ladder(tmp_path, export):
    path, metrics = trained(tmp_path, centres=0)
    report, out = export(read_own(path, "digits", 64), bits=(8, 4), profiles=("float",))
    assert [entry["name"] for entry in report["variants"]] == ["float-8", "float-4"]
    _, held = held_out(digits(), 0.2, KEY)
    found = answers(open_session((out / "float-8.onnx").read_bytes()), held.x)
    assert abs((found.argmax(1) == held.y).mean() - metrics["accuracy_personal"]) < 0.05


def test_without_a_task_it_is_not_judged(tmp_path):
    path, _ = trained(tmp_path, centres=2)
    source = read_own(path)
    assert source.data is None and source.labels == () and source.model == "own"


def test_a_memory_without_a_model_of_its_own_is_refused(tmp_path):
    remember(tmp_path, "run-1", 0, {"residual/w": np.zeros(3, np.float32)})
    with pytest.raises(ConfigError, match="no model of the device's own"):
        read_own(memory_path(tmp_path, "run-1", 0))


def test_what_does_not_fit_is_refused(tmp_path):
    path, _ = trained(tmp_path, centres=2)
    with pytest.raises(ConfigError, match="has inputs"):
        read_own(path, "fashion")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(StateError, match="copy it from the board again"):
        read_own(path, "digits")
    with pytest.raises(StateError, match="cannot be read"):
        read_own(tmp_path / "none.memory")


@pytest.mark.parametrize("harm", ["lost", "shape", "nan", "other net"])
def test_tensors_that_are_not_the_spec_s_are_refused(harm, tmp_path):
    memory = run(centres=2, warm_rounds=0, skip=[]).memory
    first = next(name for name in memory if name.startswith("personal/"))
    centres = next(name for name in memory if name.startswith("centres/"))
    spec = spec_of("mlp-9", SPEC.input, SPEC.outputs, 3) if harm == "other net" else SPEC
    if harm == "lost":
        del memory[first]
    elif harm == "shape":
        memory[first] = memory[first][:1]
    elif harm == "nan":
        memory[centres] = memory[centres] * np.float32("nan")
    remember(tmp_path, "run-1", 0, memory, spec)
    with pytest.raises((BitfleetError, ExportError)):
        read_own(memory_path(tmp_path, "run-1", 0), "digits")
