"""`bitfleet export`: words, exit status, and what it loads before it is needed."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from coordinator.__main__ import _folder, _parser
from coordinator.front.again import HOME
from coordinator.rollout.exported import read_export
from export.command import add_commands
from models.archs import spec_of
from models.init import initial
from models.personal.memory import CENTRES, PERSONAL, encode_memory
from tests.export.ladder.test_run import run_at
from tests.public_names import ROOT
from wire.errors import ConfigError, StateError
from wire.settings import leave_json


def parser():
    whole = argparse.ArgumentParser(prog="bitfleet")
    words = whole.add_subparsers(dest="command", required=True)

    def command(name, run, text):
        own = words.add_parser(name, help=text)
        own.set_defaults(run_command=run)
        return own

    add_commands(command, _folder)
    return whole


def export(*words):
    options = parser().parse_args(["export", *map(str, words)])
    return options.run_command(options)


@pytest.fixture
def home(tmp_path):
    spec = spec_of("mlp-8", (1, 8, 8), 10, 3)
    for at, name in enumerate(("first", "second")):
        folder = run_at(tmp_path / "home" / "runs" / name, spec, initial(spec))
        os.utime(folder / "model.blob", (1000 + at, 1000 + at))
    return tmp_path / "home"


def test_the_newest_run_becomes_files_a_report_and_json(home, tmp_path, capsys):
    out, copy = tmp_path / "out", tmp_path / "copy.json"
    words = ("--home", home, "--bits", "4, 8,4", "--profile", "float", "--out", out, "--json", copy)
    assert export(*words) == 0
    report = json.loads(copy.read_text())
    assert report == json.loads((out / "report.json").read_text())
    assert [one["name"] for one in report["variants"]] == ["float-8", "float-4"]
    assert report["run"] == "second" and report["examples"] == 104
    printed = capsys.readouterr().out
    assert (out / "report.md").read_text() in printed and f"2 files in {out}" in printed
    assert read_export(out).lineage["rounds"] == 3
    assert all(one["memory_bytes"] > 0 for one in report["variants"])
    told = {one.key: one.value for one in onnx.load(out / "float-8.onnx").metadata_props}
    assert told["preprocessing"] == read_export(out).preprocessing == "float32, values / 16"


@pytest.mark.parametrize("named", ["first", "home/runs/first", "home/runs/first/model.blob"])
def test_a_run_by_name_and_by_path(named, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert export(named, "--home", home, "--bits", "8", "--profile", "float") == 0
    assert json.loads((tmp_path / "exports" / "first" / "report.json").read_text())["run"] == "first"


def test_a_device_s_own_model_by_its_memory(tmp_path):
    spec = spec_of("mlp-8", (1, 8, 8), 10, 3)
    arrays = {PERSONAL + name: value for name, value in initial(spec).items()}
    arrays[CENTRES + "out.weight"] = np.float32([-0.2, 0.2])
    path = tmp_path / "night.4.accepted.memory"
    path.write_bytes(encode_memory(arrays, spec))
    out = tmp_path / "out"
    assert export(path, "--task", "digits", "--bits", "8", "--profile", "float", "--out", out) == 0
    read = read_export(out)
    assert [one.name for one in read.variants] == ["float-8", "float-centres"]
    assert (read.lineage["run"].startswith("night-own-"), read.lineage["own"]) == (True, True)
    (entry,) = (one for one in json.loads((out / "report.json").read_text())["variants"] if "centres" in one["name"])
    assert entry["widths"] == {"fc1.weight": 8, "out.weight": 1} and entry["accuracy"] is not None


def test_both_profiles_nested_and_mixed(home, tmp_path):
    words = ("--home", home, "--bits", "8,4", "--nested", "--max-drop", "2", "--calibration", "100")
    assert export(*words, "--out", tmp_path / "out") == 0
    read = read_export(tmp_path / "out")
    assert [one.name for one in read.variants] == [f"{p}-{w}" for p in ("int8", "float") for w in ("8", "4", "mixed")]


def test_what_was_refused_is_in_the_exit_status(home, tmp_path, capsys):
    words = ("--home", home, "--bits", "8", "--profile", "float", "--max-bytes", "10", "--out", tmp_path / "out")
    assert export(*words) == 1
    assert "allowed are 10" in capsys.readouterr().out
    assert [one.name for one in read_export(tmp_path / "out").variants] == ["float-8"]


@pytest.mark.parametrize(
    "words, text",
    [
        (("--bits", "9"), "--bits = 9"),
        (("--bits", "1"), "--bits = 1"),
        (("--bits", "four"), "four"),
        (("--bits", ""), "whole numbers"),
        (("--calibration", "0"), "--calibration"),
        (("--max-bytes", "0"), "--max-bytes"),
        (("--max-drop", "-1"), "--max-drop"),
        (("--max-drop", "nan"), "--max-drop"),
        (("--max-drop", "1", "--max-bytes", "9"), "give one"),
        (("--json", "nowhere/at/all.json"), "make it first"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_done(words, text, home, tmp_path):
    with pytest.raises(ConfigError, match=text):
        export(*words, "--home", home, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_run(tmp_path):
    with pytest.raises(ConfigError, match="no ended run"):
        export("--home", tmp_path)
    with pytest.raises(StateError, match="name a run"):
        export("missing", "--home", tmp_path)


def test_the_folder_of_a_run_is_not_written_over(home, tmp_path):
    folder = home / "runs" / "first"
    before = (folder / "report.json").read_bytes()
    with pytest.raises(ConfigError, match=r"report\.json.*--out"):
        export("first", "--home", home, "--bits", "8", "--profile", "float", "--out", folder)
    assert (folder / "report.json").read_bytes() == before and not (folder / "float-8.onnx").exists()


def test_json_that_cannot_be_written_says_so(home, tmp_path):
    with pytest.raises(ConfigError, match="is a folder; name a file"):
        export("--home", home, "--bits", "8", "--profile", "float", "--out", tmp_path / "out", "--json", tmp_path)
    with pytest.raises(StateError, match=r"--json .*/loop cannot be written: Too many levels"):
        (tmp_path / "loop").symlink_to("loop")
        leave_json(tmp_path / "loop", {})


def test_the_home_is_that_of_the_other_commands():
    assert _parser().parse_args(["export"]).home == HOME


def test_help(capsys):
    with pytest.raises(SystemExit) as ended:
        export("--help")
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for word in ("--bits", "--profile", "--nested", "--calibration", "--max-bytes", "--max-drop", "--out", "--json"):
        assert word in text


@pytest.mark.parametrize("module", ["export", "export.command"])
def test_nothing_heavy_is_loaded_until_it_is_needed(module):
    script = f"import {module}, sys\nprint(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True,
                          check=True, timeout=120)  # fmt: skip
    assert not set(done.stdout.split()) & {"torch", "onnx", "onnxruntime", "numpy", "coordinator", "matplotlib"}
