from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.serving import slots
from edge_agent.serving.outcome import Shelf
from edge_agent.serving.slots import Pointer, read_pointer, read_slot, settle
from edge_agent.serving.trial.barred import bar, barred
from tests.edge_agent.serving.stage import kill_points
from tests.edge_agent.serving.stage.held import facts, rot, served, serving, staged
from wire.errors import StateError

ROOT = Path(__file__).parents[3]


def test_the_life_of_two_models(tmp_path):
    assert staged(tmp_path, 1) == "a"
    assert serving(tmp_path) is None
    assert slots.switch(tmp_path, "a") == Pointer("a", True)
    assert slots.commit(tmp_path) == Pointer("a")
    assert staged(tmp_path, 2) == "b"
    assert serving(tmp_path) == 1
    slots.switch(tmp_path, "b")
    assert (serving(tmp_path), Shelf.look(tmp_path).good.version) == (2, 1)
    slots.commit(tmp_path)
    assert Shelf.look(tmp_path).good.version == 2
    assert staged(tmp_path, 3) == "a"


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Returns the list of calls, from now on, that bring the slots to the disk: no process that dies shows them."""
    made, fsync, link, replace = [], os.fsync, os.link, Path.replace

    def note(what, path):
        made.append(f"{what} {os.path.relpath(path, tmp_path)}".replace(f".{os.getpid()}.tmp", ".tmp"))

    def noted_fsync(handle):
        note("fsync", Path(f"/proc/self/fd/{handle}").readlink())
        fsync(handle)

    def noted_link(source, target):
        note("link", target)
        link(source, target)

    def noted_replace(source, target):
        note("rename", target)
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "link", noted_link)
    monkeypatch.setattr(Path, "replace", noted_replace)
    return made


def written(name, folder):
    """Returns the calls that write a file whole."""
    place = "" if folder == "." else f"{folder}/"
    return [f"fsync {place}.{name}.tmp", f"rename {place}{name}", f"fsync {folder}"]


@pytest.mark.parametrize("how", ["link", "rename"])
def test_a_switch_forces_each_thing_to_the_disk_before_what_names_it(tmp_path, calls, monkeypatch, how):
    if how == "rename":  # where the file system has no second names, the file is copied
        monkeypatch.setattr(os, "link", kill_points._no_link)
    slots.switch(tmp_path, staged(tmp_path, 1))
    slots.commit(tmp_path)
    assert calls == [
        f"{how} a/model.onnx", "fsync a/model.onnx", *written("facts.json", "a"),
        *written("pointer.json", "."), *written("healthy", "a"), *written("pointer.json", "."),
    ]  # fmt: skip


def test_falling_back(tmp_path):
    served(tmp_path, 1)
    slots.switch(tmp_path, staged(tmp_path, 2))
    assert slots.fall_back(tmp_path) == Pointer("a")
    assert serving(tmp_path) == 1
    assert staged(tmp_path, 3) == "b"


def test_the_first_model_falls_back_to_none(tmp_path):
    slots.switch(tmp_path, staged(tmp_path, 1))
    assert slots.fall_back(tmp_path) is None
    assert read_pointer(tmp_path) is None


def test_the_way_back_is_never_overwritten(tmp_path):
    served(tmp_path, 1)
    slots.switch(tmp_path, staged(tmp_path, 2))
    with pytest.raises(StateError, match="the way back"):
        staged(tmp_path, 3)


def test_a_file_that_was_not_written_right_is_seen(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"model")
    with pytest.raises(StateError, match="E-DISK"):
        slots.stage(tmp_path, source, {**facts(1, source), "digest": "0" * 64})
    assert read_slot(tmp_path, "a") is None


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    served(tmp_path, 1)
    assert serving(tmp_path) == 1


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_damaged_file_makes_the_other_serve(tmp_path, name):
    served(tmp_path, 1)
    served(tmp_path, 2)
    rot(tmp_path, name)
    settle(tmp_path)
    assert serving(tmp_path) == {"a": 2, "b": 1}[name]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"serving": "c"}', '{"serving": "a", "starts": "x"}', '{"x": 1}'])
def test_a_damaged_pointer_is_made_anew_from_what_was_healthy(tmp_path, text):
    served(tmp_path, 1)
    slots.switch(tmp_path, staged(tmp_path, 2))
    (tmp_path / "pointer.json").write_text(text)
    assert settle(tmp_path)[1] == "the pointer could not be read"
    assert serving(tmp_path) == 1


def test_what_ends_the_agent_again_and_again_is_rolled_back(tmp_path):
    served(tmp_path, 1)
    slots.switch(tmp_path, staged(tmp_path, 2))
    assert [settle(tmp_path)[0].starts for _ in range(2)] == [1, 2]
    pointer, why = settle(tmp_path)
    assert pointer == Pointer("a")
    assert "3 times" in why


def test_pinning_and_going_back(tmp_path):
    served(tmp_path, 1)
    served(tmp_path, 2)
    assert slots.go_back(tmp_path).version == 2
    assert serving(tmp_path) == 1
    with pytest.raises(StateError, match="no healthy model to go back to"):
        slots.go_back(tmp_path)
    slots.pin(tmp_path, 2)
    assert (serving(tmp_path), read_pointer(tmp_path).pinned) == (2, 2)
    slots.pin(tmp_path, 0)
    assert read_pointer(tmp_path).pinned == 0
    with pytest.raises(StateError, match="version 7 is not on this device; healthy versions here: 1, 2"):
        slots.pin(tmp_path, 7)


def test_without_any_model_every_command_says_so(tmp_path):
    for command in (slots.commit, slots.fall_back, slots.go_back, lambda folder: slots.pin(folder, 1)):
        with pytest.raises(StateError, match="no model serves"):
            command(tmp_path)
    assert settle(tmp_path) == (None, "")


def before(folder, action):
    """Leaves the slots as they are when an action begins."""
    folder.mkdir()
    served(folder, 1)
    if action in ("switch", "commit", "fall_back", "settle", "settle-barred", "go_back-trial"):
        staged(folder, 2)
    if action in ("commit", "fall_back", "settle", "settle-barred", "go_back-trial"):
        slots.switch(folder, "b")
    if action in ("go_back", "pin", "pin-barred"):
        served(folder, 2)
    if action == "pin-barred":
        slots.go_back(folder)
    if action == "settle-barred":
        bar(folder, "2" * 64)
    (folder / "source").unlink(missing_ok=True)
    (folder / "source").write_bytes(b"model 2" * 100)


@pytest.mark.parametrize(
    ("action", "least"),
    [
        ("stage", 8),
        ("copy", 8),
        ("switch", 4),
        ("commit", 8),
        ("fall_back", 9),
        ("settle", 4),
        ("settle-barred", 5),
        ("pin", 4),
        ("pin-barred", 8),
        ("go_back", 8),
        ("go_back-trial", 9),
    ],
)
def test_killed_at_every_call_to_the_file_system_the_old_or_the_new_serves(tmp_path, action, least):
    base = tmp_path / "models"
    before(base, action)
    words = [sys.executable, "-W", "error", "-m", "tests.edge_agent.serving.stage.kill_points", str(base), action]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    left = [base.with_name(f"models.{line.split()[0]}") for line in done.stdout.splitlines()]
    assert len(left) > least
    for folder in left:
        assert serving(folder) in (1, 2), f"{folder.name}: nothing serves before the next start"
        settle(folder)
        assert serving(folder) in (1, 2), f"{folder.name}: nothing serves after the next start"
        if action in ("fall_back", "settle-barred", "go_back-trial") and barred(folder):
            assert (serving(folder), read_pointer(folder).trying) == (1, False), f"{folder.name}: the barred one serves"
        if read_pointer(folder).trying:
            slots.fall_back(folder)
            assert serving(folder) == 1
        assert served(folder, 3).serving
        assert serving(folder) == 3, f"{folder.name}: the next installation does not work"


def test_killed_while_it_makes_do_with_what_was_never_tried_it_is_on_trial_or_nothing_serves(tmp_path):
    base = tmp_path / "models"
    before(base, "switch")
    rot(base, "a")
    words = [sys.executable, "-W", "error", "-m", "tests.edge_agent.serving.stage.kill_points", str(base), "settle"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    left = [base.with_name(f"models.{line.split()[0]}") for line in done.stdout.splitlines()]
    assert len(left) > 4
    for folder in left:
        assert serving(folder) is None or read_pointer(folder).trying
        settle(folder)
        assert (serving(folder), read_pointer(folder).trying) == (2, True)
        assert slots.fall_back(folder) is None
