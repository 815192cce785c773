"""What a person types on the board about models."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from edge_agent.__main__ import main
from edge_agent.config import load_config
from edge_agent.serving import commands, slots
from edge_agent.serving.model import Model
from edge_agent.serving.outcome import basis_of, load_outcome
from edge_agent.serving.policy import Finding
from edge_agent.serving.trial.findings import save_findings
from tests.edge_agent.serving.stage.files import INPUT, INPUTS, LABELS, Publisher, file_bytes, outputs_of
from wire.messages.manifest import Measured


class Board:
    """A device on which two versions were served, with a manifest of two variants."""

    def __init__(self, folder):
        self.state, self.path = folder / "state", folder / "agent.toml"
        self.models = self.state / "models"
        (self.models / "store").mkdir(parents=True)
        self.publisher = Publisher(folder)
        self.path.write_text(
            f'device = "dev-1"\nfleet = "test"\nbroker = "mqtt://127.0.0.1:1"\nstate_dir = "{self.state}"\n'
            f'model_keys = ["{self.publisher.public}"]\n[data]\ntask = "digits"\n'
        )
        for version in (1, 2):
            self.serve(version)

    def serve(self, version):
        files = {"float-32": file_bytes(version), "int8-8": file_bytes(version)}
        made = self.publisher.manifest(
            version, files, edit=lambda v: replace(v, measured=Measured("lab", 0.9 if v.bits == 8 else 0.95))
        )
        data = self.publisher.signed(made)
        digest = self.publisher.keep(data)
        for name, held in ((digest, data), (made.golden, self.publisher.blobs[made.golden])):
            (self.models / "store" / name).write_bytes(held)
        source = self.models / "source"
        source.unlink(missing_ok=True)
        source.write_bytes(files["float-32"])
        facts = {
            "version": version,
            "manifest": digest,
            "digest": slots.file_digest(source),
            "variant": "float-32",
            "bits": 32.0,
            "model": "net",
            "bytes": len(files["float-32"]),
            "profile": "float",
            "input": list(INPUT),
            "outputs": 3,
            "labels": list(LABELS),
            "options": {},
            "why": "the best",
        }
        slots.switch(self.models, slots.stage(self.models, source, facts))
        slots.commit(self.models)
        self.manifest = digest

    def say(self, *words):
        return main([*words, "--config", str(self.path)])


@pytest.fixture
def board(tmp_path):
    return Board(tmp_path)


@pytest.fixture
def said(board, capsys):
    """Returns a function that runs a command and returns what it printed as JSON."""

    def run(*words):
        assert board.say(*words, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_models(said, board, capsys):
    found = said("models")
    assert [(slot["version"], slot["healthy"]) for slot in found["slots"]] == [(1, True), (2, True)]
    assert (found["phase"], found["serving"], found["pinned"]) == ("healthy", "b", 0)
    assert board.say("models") == 0
    assert 'slot="a"  healthy=True  version=1' in capsys.readouterr().out


def test_infer_names_the_model_that_answered_not_the_one_that_serves_by_then(said, tmp_path, monkeypatch):
    np.save(tmp_path / "rows.npy", INPUTS)
    monkeypatch.setattr(Model, "version", property(lambda model: 99))
    assert said("infer", str(tmp_path / "rows.npy"))["version"] == 2


@pytest.mark.parametrize("name", ["rows.npy", "rows.npz", "one.npy", "flat.npy", "rows.csv"])
def test_infer(said, tmp_path, name):
    path, rows = tmp_path / name, INPUTS
    if name == "rows.npz":
        np.savez(path, y=np.zeros(3), x=rows)
    elif name.endswith(".csv"):
        np.savetxt(path, rows.reshape(len(rows), -1), delimiter=",")
    else:
        rows = rows[:1] if name == "one.npy" else rows
        np.save(path, {"one.npy": rows[0], "flat.npy": rows.reshape(len(rows), -1)}.get(name, rows))
    found = said("infer", str(path))
    right = outputs_of(file_bytes(2), rows)
    assert (found["version"], found["variant"]) == (2, "float-32")
    assert found["answers"] == [LABELS[at] for at in right.argmax(1)]
    np.testing.assert_allclose(found["outputs"], right, atol=1e-4)


def test_infer_leaves_out_the_labels_of_a_file_to_train_from(said, tmp_path):
    flat = INPUTS.reshape(len(INPUTS), -1)
    names = ",".join(f"v{at}" for at in range(flat.shape[1]))
    last = np.column_stack([flat, np.arange(len(flat))])
    first = np.column_stack([np.arange(len(flat)), flat, np.zeros(len(flat))])
    np.savetxt(tmp_path / "last.csv", last, delimiter=",")
    np.savetxt(tmp_path / "unnamed.csv", last, delimiter=",", header=names + ",what", comments="")
    np.savetxt(tmp_path / "named.csv", first, delimiter=",", header=f"label, {names}, subject", comments="")
    np.savetxt(tmp_path / "bare.csv", flat, delimiter=",", header=names, comments="")
    right = outputs_of(file_bytes(2), INPUTS)
    (tmp_path / "sheet.csv").write_text((tmp_path / "named.csv").read_text(), encoding="utf-8-sig")
    (tmp_path / "rows.csv").write_text((tmp_path / "last.csv").read_text(), encoding="utf-8-sig")
    for name in ("last", "unnamed", "named", "bare", "sheet", "rows"):
        np.testing.assert_allclose(said("infer", str(tmp_path / f"{name}.csv"))["outputs"], right, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.npy", b"\x80\x04K\x01."), ("a.npz", b"PK"), ("a.npy", b""), ("b", None),
        ("a.csv", b"a,b\n"), ("a.csv", b"1,\n1,2\n"), ("absent.csv", None),
        ("a.csv", b""), ("a.csv", b"1,2\n3\n"), ("a.csv", b"1,2\n3,x\n"), ("a.csv", b"\xff"),
    ],
)  # fmt: skip
def test_infer_says_what_is_wrong_with_a_file(board, tmp_path, capsys, name, data):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    assert board.say("infer", str(tmp_path / name)) == 1
    assert capsys.readouterr().err.startswith("bitfleet-agent: E-DATA: ")


def test_infer_says_of_a_file_that_is_not_there_no_more_than_that(board, tmp_path, capsys):
    assert board.say("infer", str(tmp_path / "absent.csv")) == 1
    said = capsys.readouterr().err
    assert "absent.csv cannot be read: " in said
    assert "give a file that is there" in said
    assert "UTF-8" not in said


def test_infer_takes_no_pickle(board, tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert board.say("infer", str(tmp_path / "a.npy")) == 1
    assert "E-DATA" in capsys.readouterr().err


def test_infer_names_the_right_shape(board, tmp_path, capsys):
    np.save(tmp_path / "a.npy", np.zeros((2, 7)))
    assert board.say("infer", str(tmp_path / "a.npy")) == 1
    assert "give (1, 4, 4), or rows of that shape" in capsys.readouterr().err


def test_rollback_by_hand_and_the_version_stays_away(said, board, capsys):
    found = said("rollback")
    assert (found["phase"], found["reason"], found["serving"]) == ("rolled-back", "by hand, on the device", "a")
    assert load_outcome(board.models).settles(board.manifest, basis_of(load_config(board.path)))
    assert board.say("rollback") == 1
    assert "no healthy model to go back to" in capsys.readouterr().err


def test_pin(said, board, capsys):
    found = said("pin", "1")
    assert (found["phase"], found["pinned"], found["serving"]) == ("pinned", 1, "a")
    assert said("pin", "0")["pinned"] == 0
    assert board.say("pin", "7") == 1
    assert "healthy versions here: 1, 2" in capsys.readouterr().err


def test_bench_measures_what_is_here(said):
    found = said("bench")
    rows = {row["variant"]: row for row in found["variants"]}
    assert found["version"] == 2
    assert rows["float-32"]["latency_ms"] > 0
    assert rows["float-32"]["why"] == "chosen"
    assert rows["int8-8"]["fits"]
    assert "best of 2 of 2 variants" in found["why"]


def test_bench_says_no_old_figures_of_what_is_not_here(said, board, monkeypatch):
    old = {name: Finding(latency_ms=77.0) for name in ("float-32", "int8-8")}
    save_findings(load_config(board.path), board.models, board.manifest, old, {name: {} for name in old})
    here = commands._file_of
    monkeypatch.setattr(commands, "_file_of", lambda *words: None if words[1].bits == 8 else here(*words))
    rows = {row["variant"]: row for row in said("bench")["variants"]}
    assert 0 < rows["float-32"]["latency_ms"] < 77
    assert (rows["int8-8"]["latency_ms"], rows["int8-8"]["why"][-14:]) == (None, "not tried here")


def test_bench_gives_up_on_an_agent_with_nothing_to_measure(board, monkeypatch, capsys):
    monkeypatch.setattr("edge_agent.__main__.running", lambda folder: 1)
    assert board.say("bench", "--wait-s", "0.1") == 1
    assert "E-STATE: the agent gave no answer within 0 s" in capsys.readouterr().err
    assert not (board.models / "bench.wish").exists()


@pytest.mark.parametrize("words", [["models"], ["bench"], ["rollback"], ["pin", "1"], ["infer", "a.npy"]])
def test_on_a_device_that_never_had_a_model(tmp_path, capsys, words):
    path = tmp_path / "agent.toml"
    state = tmp_path / "state"
    state.mkdir()
    path.write_text(f'device = "d"\nfleet = "f"\nbroker = "mqtt://x"\nstate_dir = "{state}"\n[data]\ntask = "digits"\n')
    assert main([*words, "--config", str(path)]) == 1
    assert "E-STATE: " in capsys.readouterr().err
    assert not list(state.iterdir())
