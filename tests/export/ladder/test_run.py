"""Runs as they lie on the disk: whole, open, damaged, with a trunk; and checkpoints in them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from coordinator.learning.checkpoint import ServerState, save_state
from export.ladder.run import read_source
from models.archs import spec_of
from models.data import load
from models.init import initial
from wire.errors import BitfleetError, ConfigError, StateError
from wire.messages.blob import digest_bytes, snapshot_blob, trunk_blob
from wire.params import params_digest
from wire.spec import canonical_json


def model_of(freeze=(), change=0.0, outputs=10):
    spec = spec_of("mlp-8", (1, 8, 8), outputs, 3, freeze)
    return spec, {name: value + np.float32(change) for name, value in initial(spec).items()}


def run_at(folder, spec, params, **facts):
    """Leaves what a run leaves when it ends."""
    folder.mkdir(parents=True)
    (folder / "spec.json").write_bytes(canonical_json(spec.to_json()))
    (folder / "model.blob").write_bytes(snapshot_blob(params, spec)[1])
    report = {"run": folder.name, "task": "digits", "recipe": "fedavg", "rounds": 3, "updates": 9, "simulated": True}
    (folder / "report.json").write_text(json.dumps({**report, "model_digest": params_digest(params), **facts}))
    return folder


@pytest.fixture
def run(tmp_path):
    spec, params = model_of()
    return run_at(tmp_path / "0102-run", spec, params), params


def same(one, other):
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("named", ["", "model.blob"])
def test_a_run_is_read_with_its_task(named, run):
    folder, params = run
    source = read_source(folder / named if named else folder, calibration=50)
    assert same(source.params, params)
    assert (source.run, source.model, source.labels) == ("0102-run", "digits", tuple("0123456789"))
    assert len(source.chooses) == 50 and len(source.states) == 310
    assert source.lineage == {"run": "0102-run", "recipe": "fedavg", "task": "digits", "rounds": 3, "updates": 9,
                              "simulated": True, "epsilon": None}  # fmt: skip
    assert source.preprocessing and source.still is None


@pytest.mark.parametrize(("said", "told"), [("log of counts", "log of counts"), ("", "as the task's examples are")])
def test_what_a_dataset_says_of_its_values_is_told(said, told, run, monkeypatch):
    monkeypatch.setattr("export.ladder.run.load", lambda name, part: replace(load(name, part), preprocessing=said))
    assert read_source(run[0]).preprocessing == told


def test_privacy_is_in_the_lineage(tmp_path):
    spec, params = model_of()
    folder = run_at(tmp_path / "run", spec, params, privacy={"epsilon": 2.5})
    assert read_source(folder).lineage["epsilon"] == 2.5


def test_a_checkpoint_holds_the_model_of_its_round(run):
    folder, params = run
    (folder / "checkpoints").mkdir()
    spec, early = model_of(change=0.5)
    state = ServerState(early, params, {"momentum": params})  # the devices hold another one
    save_state(folder / "checkpoints" / "2.state", state, spec)
    assert same(read_source(folder / "checkpoints" / "2.state").params, early)
    assert same(read_source(folder).params, params)


@pytest.mark.parametrize("harm", ["cut", "flip", "none", "other"])
def test_a_damaged_checkpoint_is_refused(harm, run):
    folder, params = run
    path = folder / "checkpoints" / "2.state"
    path.parent.mkdir()
    save_state(path, ServerState(params, params), model_of()[0])
    data = path.read_bytes()
    middle = len(data) // 2
    wrong = {"cut": data[:middle], "flip": data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
             "other": (folder / "model.blob").read_bytes()}  # fmt: skip
    path.unlink() if harm == "none" else path.write_bytes(wrong[harm])
    with pytest.raises(StateError, match=r"2\.state cannot be read"):
        read_source(path)


def test_a_run_without_its_model_can_be_read_by_checkpoint_only(run):
    folder, _ = run
    (folder / "model.blob").unlink()
    with pytest.raises(StateError, match="name a checkpoint"):
        read_source(folder)


def test_no_run_at_all(tmp_path):
    with pytest.raises(StateError, match="name a run"):
        read_source(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["report.json", "spec.json"])
def test_a_file_that_is_no_model_is_not_taken_for_one(name, run):
    with pytest.raises(ConfigError, match="is no model"):
        read_source(run[0] / name)


@pytest.mark.parametrize(
    "name, data",
    [
        ("spec.json", b"{"),
        ("spec.json", b"[]"),
        ("spec.json", b"\xff\xfe"),
        ("spec.json", b'{"arch": "mlp-8"}'),
        ("report.json", b"{"),
        ("report.json", b"[1]"),
        ("report.json", b'{"rounds": NaN}'),
        ("model.blob", b""),
        ("model.blob", b"BFLT and then nothing"),
    ],
)
def test_a_damaged_file_is_named(name, data, run):
    (run[0] / name).write_bytes(data)
    with pytest.raises(StateError, match=name.replace(".", r"\.")):
        read_source(run[0])


def test_the_model_of_another_run_is_not_taken(run):
    spec, other = model_of(change=1.0)
    (run[0] / "model.blob").write_bytes(snapshot_blob(other, spec)[1])
    with pytest.raises(StateError, match="another model"):
        read_source(run[0])


def test_a_spec_of_another_net_is_not_taken(run):
    wide = spec_of("mlp-9", (1, 8, 8), 10, 3)
    (run[0] / "spec.json").write_bytes(canonical_json(wide.to_json()))
    with pytest.raises(BitfleetError):
        read_source(run[0])


def test_without_a_report_only_the_weights_are_known(run):
    folder, params = run
    (folder / "report.json").unlink()
    source = read_source(folder)
    assert same(source.params, params)
    assert source.data is None and source.labels == () and source.lineage["rounds"] is None
    assert source.model == source.run == "0102-run"
    assert read_source(folder, "digits").data is not None


def test_a_task_that_the_net_was_not_made_for_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match=r"watch.*\(6, 100\)"):
        read_source(run[0], "watch")
    with pytest.raises(ConfigError, match="unknown task"):
        read_source(run[0], "dogs")
    spec, params = model_of(outputs=4)
    with pytest.raises(ConfigError, match="10 outputs"):
        read_source(run_at(tmp_path / "four", spec, params))


@pytest.mark.parametrize("name, wanted", [("My run_2", "my-run-2"), ("...", "model"), ("x" * 50, "x" * 32)])
def test_any_folder_gives_a_name_that_a_manifest_takes(name, wanted, tmp_path):
    spec, params = model_of()
    folder = run_at(tmp_path / name, spec, params, run="../../Odd name", task=None)
    source = read_source(folder)
    assert (source.model, source.run) == (wanted, "odd-name")


def test_frozen_tensors_come_from_the_trunk_that_the_run_notes(tmp_path):
    spec, params = model_of(freeze=("fc1.*",))
    folder = run_at(tmp_path / "run", spec, params)
    still = {tensor.name: np.full(tensor.shape, 0.25, np.float32) for tensor in spec.frozen}
    other = {name: value * 2 for name, value in still.items()}
    (folder / "blobs").mkdir()
    for part in (still, other):
        data = trunk_blob(part, spec)
        (folder / "blobs" / digest_bytes(data)).write_bytes(data)
    assert read_source(folder).still is None
    for part in (still, other):
        (folder / "trunk").write_text(digest_bytes(trunk_blob(part, spec)))
        source = read_source(folder)
        assert same(source.still, part) and set(source.values) == {*params, *still}


@pytest.mark.parametrize("harm", ["gone", "flip", "note"])
def test_a_trunk_that_is_lost_is_never_replaced_by_the_seed(harm, tmp_path):
    spec, params = model_of(freeze=("fc1.*",))
    folder = run_at(tmp_path / "run", spec, params)
    data = trunk_blob({tensor.name: np.ones(tensor.shape, np.float32) for tensor in spec.frozen}, spec)
    blob = folder / "blobs" / digest_bytes(data)
    blob.parent.mkdir()
    if harm != "gone":
        blob.write_bytes(data if harm == "note" else data[:-9] + b"\0" + data[-8:])
    (folder / "trunk").write_text("" if harm == "note" else blob.name)
    with pytest.raises(StateError, match="frozen tensors"):
        read_source(folder)
