"""Records are whole, belong to their settings, and one process at a time makes them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from benchmarks.claims.store import Store
from tests.benchmarks.made import OTHER, TRIAL, record


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_what_was_written_is_read(store):
    made = record(TRIAL, 2, accuracy=0.5, nested=[{"a": 1}])
    assert store.read(TRIAL, 2) is None
    store.write(TRIAL, 2, made)
    assert store.read(TRIAL, 2) == made
    assert store.read(TRIAL, 1) is None
    assert [path.name for path in store.folder.iterdir()] == ["made.2.json"]


@pytest.mark.parametrize(
    "changed",
    [
        replace(TRIAL, settings=("rounds=4",)),
        replace(TRIAL, devices=7),
        replace(TRIAL, recipe="kure"),
        replace(TRIAL, offset=1),
    ],
)
def test_other_settings_do_not_count(store, changed):
    store.write(TRIAL, 1, record(TRIAL, 1))
    assert store.read(changed, 1) is None
    assert store.read(replace(TRIAL, long=True), 1)


def test_a_setting_that_recipes_got_since_changes_nothing(store):
    made = record(TRIAL, 1)
    del made["settings"]["downlink"]
    store.write(TRIAL, 1, made)
    assert store.read(TRIAL, 1)


def test_a_setting_that_recipes_no_longer_have_makes_it_stale(store):
    made = record(TRIAL, 1)
    made["settings"]["gone"] = 1
    store.write(TRIAL, 1, made)
    assert store.read(TRIAL, 1) is None


def test_a_failed_write_leaves_the_old_record(store, monkeypatch):
    store.write(TRIAL, 1, record(TRIAL, 1, accuracy=0.1))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("the disk is full")))
    with pytest.raises(OSError, match="full"):
        store.write(TRIAL, 1, record(TRIAL, 1, accuracy=0.2))
    assert store.read(TRIAL, 1)["figures"] == {"accuracy": 0.1}


def test_a_lock_is_one_trial_and_seed_and_leaves_nothing(store):
    with store.lock(TRIAL, 1) as first, store.lock(TRIAL, 2) as second, store.lock(OTHER, 1) as third:
        assert (first, second, third) == (0, 0, 0)
        with store.lock(TRIAL, 1) as again:
            assert again == os.getpid()
    assert not list(store.folder.iterdir())
    with store.lock(TRIAL, 1) as free:
        assert free == 0


def test_another_process_is_named_and_its_death_frees_the_trial(store):
    script = (
        "import sys, pathlib; from benchmarks.claims.store import Store; from tests.benchmarks.made import TRIAL\n"
        "with Store(pathlib.Path(sys.argv[1])).lock(TRIAL, 1) as mine:\n print(mine, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(store.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "0\n"
        with store.lock(TRIAL, 1) as holder:
            assert holder == child.pid
        child.kill()
    with store.lock(TRIAL, 1) as holder:
        assert holder == 0
