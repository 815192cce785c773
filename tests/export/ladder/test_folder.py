"""The folder of an export: nothing of an earlier one is taken for this one's, and no other file is touched."""

from __future__ import annotations

import os

import pytest

from coordinator.rollout.exported import read_export
from export.ladder.drafts import Wish
from export.ladder.folder import leave, prepare
from export.ladder.make import make_ladder
from export.ladder.mixed import Budget
from export.ladder.report import write_report
from wire.errors import ConfigError, StateError
from wire.frame import Kind, encode_frame

FLOAT = {"profiles": ("float",)}


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_smaller_export_leaves_nothing_of_the_larger_one(source, export):
    _, out = export(source("mlp-32"), nested=True, budget=Budget(most_drop=0.5))
    assert {"int8.bundle", "int8-mixed.onnx", "float-8.onnx"} <= names(out)
    export(source("mlp-32"), bits=(4,), **FLOAT)
    assert names(out) == {"float-4.onnx", "golden.bin", "report.json", "report.md"}
    assert [one.name for one in read_export(out).variants] == ["float-4"]


def test_where_nothing_can_be_made_nothing_old_stays(source, export):
    _, out = export(source("mlp-32"), **FLOAT)
    report, _ = export(source("mlp-32"), bits=(), budget=Budget(most_bytes=1), **FLOAT)
    assert report["variants"] == [] and report["golden"] == ""
    assert names(out) == {"report.json", "report.md"}


def test_an_old_report_goes_even_if_no_new_one_follows(source, export):
    _, out = export(source("mlp-32"), **FLOAT)
    make_ladder(source("mlp-32"), Wish((4,), ("float",), rounds=1), out)
    assert names(out) == {"float-4.onnx", "golden.bin"}


def test_an_old_picture_goes_with_its_report(source, export):
    report, out = export(source("mlp-32"), **FLOAT)
    write_report(report, out)
    assert (out / "report.png").exists()
    export(source("mlp-32"), **FLOAT)
    assert not (out / "report.png").exists()


def test_files_of_others_stay_as_they_are(source, export, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    others = dict.fromkeys(("notes.txt", "float-9.onnx", "float-4.onnx.bak", ".x.tmp", "a.bundle"), b"mine")
    for name, data in others.items():
        (out / name).write_bytes(data)
    (out / ".float-4.onnx.123.tmp").write_bytes(b"a killed export's")
    export(source("mlp-32"), **FLOAT)
    assert {name: (out / name).read_bytes() for name in others} == others
    assert not (out / ".float-4.onnx.123.tmp").exists()


@pytest.mark.parametrize(
    "name, data",
    [
        ("float-3.onnx", b"another tool's model"),
        ("int8.bundle", b"what else is called so"),
        ("golden.bin", encode_frame(Kind.BLOB, {}, b"")),
        ("report.json", b'{"run": "r", "accuracy": 0.5}'),
        ("report.json", b"[" * 100_000),
        ("report.md", b"# My thesis\n"),
        ("report.png", b"\x89PNG\r\n\x1a\n another picture"),
    ],
)
def test_a_name_that_another_file_has_stops_the_export_before_it_begins(name, data, source, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=rf"{name}.*--out"):
        make_ladder(source("mlp-32"), Wish((4,), ("float",)), tmp_path)
    assert names(tmp_path) == {name} and (tmp_path / name).read_bytes() == data


def test_a_link_or_a_folder_is_not_ours(source, export, tmp_path):
    _, elsewhere = export(source("mlp-32"), out=tmp_path / "elsewhere", **FLOAT)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "float-8.onnx").symlink_to(elsewhere / "float-8.onnx")
    (tmp_path / "folders" / "float-8.onnx").mkdir(parents=True)
    for name in ("links", "folders"):
        with pytest.raises(ConfigError, match="float-8"):
            prepare(tmp_path / name)
        leave(tmp_path / name, {})
        assert names(tmp_path / name) == {"float-8.onnx"}


def test_what_the_disk_refuses_is_said_with_the_remedy(source, tmp_path):
    taken = tmp_path / "file"
    taken.write_bytes(b"")
    with pytest.raises(StateError, match=r"file.*make room"):
        make_ladder(source("mlp-32"), Wish((4,), ("float",)), taken)


def test_a_full_disk_leaves_no_report_that_lies(source, export, monkeypatch):
    report, out = export(source("mlp-32"), **FLOAT)
    fsync, done = os.fsync, []

    def full(handle):
        done.append(handle)
        if len(done) > 3:
            raise OSError(28, "No space left on device")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match="No space left"):
        make_ladder(source("mlp-32"), Wish((6, 5), ("float",), rounds=1), out)
    with pytest.raises(StateError, match="No space left"):
        write_report(report, out, picture=False)
    assert not (out / "report.json").exists()
    with pytest.raises(StateError, match=r"report\.json"):
        read_export(out)
    monkeypatch.undo()
    export(source("mlp-32"), bits=(5,), **FLOAT)
    assert [one.name for one in read_export(out).variants] == ["float-5"]
