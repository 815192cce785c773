"""The application's side: what answers, what follows a switch, what is noted for the agent."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from threading import Thread
from time import monotonic, sleep

import numpy as np
import pytest

from edge_agent import Model
from edge_agent.serving import slots
from edge_agent.serving.health import failures_of
from edge_agent.serving.session import run_rows
from tests.edge_agent.serving.stage.files import INPUT, INPUTS, LABELS, file_bytes, outputs_of, with_nan
from wire.errors import ConfigError, DataError, StateError, WireError

ROOT = Path(__file__).parents[3]
WAIT_S = 30.0


class Shelf:
    """A device's folder of models, filled by hand."""

    def __init__(self, state):
        self.state, self.folder = state, state / "models"
        self.folder.mkdir(parents=True)

    def serve(self, version, data, commit=True, **changes):
        source = self.folder / "source"
        source.unlink(missing_ok=True)
        source.write_bytes(data)
        facts = {
            "version": version,
            "digest": slots.file_digest(source),
            "variant": f"int8-{version}",
            "manifest": "0" * 64,
            "input": list(INPUT),
            "outputs": 3,
            "labels": list(LABELS),
            "options": {},
            **changes,
        }
        slots.switch(self.folder, slots.stage(self.folder, source, facts))
        if commit:
            slots.commit(self.folder)
        return facts["digest"]


@pytest.fixture
def shelf(tmp_path):
    made = Shelf(tmp_path / "state")
    made.serve(1, file_bytes(1))
    return made


def test_answers_one_and_many(shelf):
    model = Model.current(shelf.state)
    assert (model.version, model.variant, model.labels, model.input) == (1, "int8-1", LABELS, INPUT)
    right = outputs_of(file_bytes(1))
    np.testing.assert_array_equal(model.predict(INPUTS), right)
    np.testing.assert_allclose(model.predict(INPUTS[3]), right[3], rtol=1e-6)
    assert model.predict(np.ones(INPUT, np.uint8)).shape == (3,)


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((4, 4)),
        np.zeros((2, 1, 4, 5)),
        np.zeros((0, *INPUT)),
        np.zeros(()),
        np.full(INPUT, "a"),
        np.full(INPUT, np.nan),
        np.full(INPUT, 1e300),
        np.zeros(INPUT, complex),
    ],
)
def test_wrong_inputs_are_the_applications_fault_and_not_noted(shelf, x):
    with pytest.raises(DataError), np.errstate(over="ignore"):
        Model.current(shelf.state).predict(x)
    assert not (shelf.folder / "failures").exists()


def test_follows_a_switch_and_a_way_back(shelf):
    model = Model.current(shelf.state)
    assert not model.follow()
    shelf.serve(2, file_bytes(2), commit=False)
    assert model.follow()
    assert model.version == 2
    np.testing.assert_array_equal(model.predict(INPUTS), outputs_of(file_bytes(2)))
    slots.fall_back(shelf.folder)
    assert model.follow()
    assert model.version == 1


def test_predict_follows_by_itself(shelf):
    model = Model.current(shelf.state)
    shelf.serve(2, file_bytes(2))
    ends_s = monotonic() + WAIT_S
    while model.version == 1 and monotonic() < ends_s:
        model.predict(INPUTS)
        sleep(0.05)
    assert model.version == 2


def test_the_same_file_under_a_new_version_is_not_loaded_again(shelf):
    model = Model.current(shelf.state)
    session = model.loaded.session
    shelf.serve(2, file_bytes(1))
    assert not model.follow()
    assert (model.version, model.loaded.session) == (2, session)


def test_a_new_one_that_does_not_load_is_noted_and_the_old_goes_on(shelf):
    model = Model.current(shelf.state)
    digest = shelf.serve(2, b"no model at all", commit=False)
    assert not model.follow()
    assert not model.follow()
    assert model.version == 1
    assert np.isfinite(model.predict(INPUTS)).all()
    ((code, reason),) = failures_of(shelf.folder, digest)
    assert code == "E-MODEL-LOAD"
    assert "does not load" in reason


def test_a_first_one_that_does_not_load_is_noted_and_an_error(tmp_path):
    shelf = Shelf(tmp_path / "state")
    digest = shelf.serve(1, b"no model at all")
    with pytest.raises(WireError, match="E-MODEL-LOAD"):
        Model.current(shelf.state)
    assert failures_of(shelf.folder, digest)


def test_answers_that_are_not_finite_are_noted(shelf):
    digest = shelf.serve(2, with_nan(), commit=False)
    model = Model.current(shelf.state)
    for _ in range(3):
        assert failures_of(shelf.folder, digest) == []
        with pytest.raises(WireError, match="E-MODEL-NAN"):
            model.predict(INPUTS)
    assert set(failures_of(shelf.folder, digest)) == {("E-MODEL-NAN", "an answer is not finite")}
    assert failures_of(shelf.folder, "0" * 64) == []


def test_an_application_that_is_started_again_at_each_failure_is_heard_too(shelf):
    digest = shelf.serve(2, with_nan(), commit=False)
    for _ in range(3):
        assert failures_of(shelf.folder, digest) == []
        with pytest.raises(WireError, match="E-MODEL-NAN"):
            Model.current(shelf.state).predict(INPUTS)
    assert failures_of(shelf.folder, digest)


def test_only_failures_in_a_row_count_and_no_absurd_reading_does(shelf, monkeypatch):
    """A net that does not know what to say to zeros, and one reading in two is none."""
    real, model = run_rows, Model.current(shelf.state)
    monkeypatch.setattr(
        "edge_agent.serving.model.run_rows", lambda session, rows: real(session, rows) / (1 if rows.any() else np.nan)
    )
    dead, absurd = np.zeros(INPUT, np.float32), np.full(INPUT, 3e38, np.float32)
    for x in [INPUTS, dead, dead, INPUTS, dead, absurd, absurd, absurd, dead, INPUTS, absurd]:
        with suppress(WireError):
            model.predict(x)
    assert failures_of(shelf.folder, model.loaded.facts["digest"]) == []
    for _ in range(3):
        with pytest.raises(WireError, match="E-MODEL-NAN"):
            model.predict(dead)
    assert failures_of(shelf.folder, model.loaded.facts["digest"])


def test_an_answer_names_the_model_that_gave_it(shelf, monkeypatch):
    model = Model.current(shelf.state)

    def switching(session, rows):
        shelf.serve(2, file_bytes(2), labels=["x", "y", "z"])
        assert model.follow()
        return run_rows(session, rows)

    monkeypatch.setattr("edge_agent.serving.model.run_rows", switching)
    told = model.answer(INPUTS)
    assert (told.version, told.variant, told.labels) == (1, "int8-1", LABELS)
    np.testing.assert_array_equal(told.outputs, outputs_of(file_bytes(1)))
    monkeypatch.undo()
    assert (model.answer(INPUTS[0]).version, model.answer(INPUTS[0]).labels) == (2, ("x", "y", "z"))


def test_a_good_model_whose_pointer_is_lost_goes_on(shelf, monkeypatch):
    monkeypatch.setattr("edge_agent.serving.model._GRACE_S", 0.0)
    model = Model.current(shelf.state)
    for text in ("{", None):
        (shelf.folder / "pointer.json").unlink()
        if text:
            (shelf.folder / "pointer.json").write_text(text)
        assert not model.follow()
        assert model.predict(INPUTS).shape == (8, 3)


def test_a_board_that_gave_up_its_models_says_so(shelf, monkeypatch):
    monkeypatch.setattr("edge_agent.serving.model._GRACE_S", 0.0)
    model = Model.current(shelf.state)
    rmtree(shelf.folder)
    assert not model.follow()
    with pytest.raises(StateError, match=r"model 1 .* was withdrawn, and nothing says why"):
        model.predict(INPUTS)


def test_a_run_that_fails_is_noted(shelf, monkeypatch):
    model = Model.current(shelf.state)

    def fail(session, rows):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("edge_agent.serving.model.run_rows", fail)
    for _ in range(3):
        with pytest.raises(WireError, match=r"E-MODEL-LOAD.*RuntimeError: out of luck"):
            model.predict(INPUTS)
    (first, *_) = failures_of(shelf.folder, model.loaded.facts["digest"])
    assert first == ("E-MODEL-LOAD", "RuntimeError: out of luck")


def test_an_application_that_may_not_write_still_gets_its_error(shelf, monkeypatch, capsys):
    def refuse(*words):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("edge_agent.serving.model.note_failure", refuse)
    shelf.serve(2, with_nan(), commit=False)
    with pytest.raises(WireError, match="E-MODEL-NAN"):
        Model.current(shelf.state).predict(INPUTS)
    assert "model-failure-unnoted" in capsys.readouterr().err


def test_a_file_that_is_torn_is_never_loaded(shelf):
    model = Model.current(shelf.state)
    shelf.serve(2, file_bytes(2))
    (shelf.folder / "b" / "model.onnx").unlink()
    (shelf.folder / "b" / "model.onnx").write_bytes(file_bytes(3))
    assert not model.follow()
    assert model.version == 1
    with pytest.raises(StateError, match="no model serves"):
        Model.current(shelf.state)


def test_without_a_model(tmp_path):
    (tmp_path / "models").mkdir()
    with pytest.raises(StateError, match=r"no model serves.*bitfleet rollout start"):
        Model.current(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        Model.current(tmp_path / "agent.toml")


def test_found_by_the_agents_configuration(shelf, tmp_path):
    path = tmp_path / "agent.toml"
    path.write_text(
        f'device = "d"\nfleet = "f"\nbroker = "mqtt://x"\nstate_dir = "{shelf.state}"\n[data]\ntask = "digits"\n'
    )
    assert Model.current(path).version == 1


def test_many_threads_while_models_change(shelf):
    model = Model.current(shelf.state)
    rights = {version: outputs_of(file_bytes(version)) for version in range(1, 6)}
    wrong, done = [], []

    def ask():
        while not done:
            found = model.predict(INPUTS)
            if not any(np.array_equal(found, right) for right in rights.values()):
                wrong.append(found)

    threads = [Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for version in range(2, 6):
            shelf.serve(version, file_bytes(version))
            assert model.follow() or model.version == version
    finally:
        done.append(True)
        for thread in threads:
            thread.join()
    assert not wrong
    assert model.version == 5


def test_importing_the_package_loads_no_runtime():
    script = "import edge_agent, sys; assert 'numpy' not in sys.modules; from edge_agent import Model; "
    script += "assert not {'onnxruntime', 'torch'} & set(sys.modules); edge_agent.Modell"
    words = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert "module 'edge_agent' has no attribute 'Modell'" in done.stderr
