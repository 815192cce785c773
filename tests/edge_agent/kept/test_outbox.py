from __future__ import annotations

from hashlib import sha256

import pytest

from edge_agent.kept.outbox import Entry, entries, entry_path, listed, remove

EMPTY = sha256(b"").hexdigest()


def put(folder, data, run="run-1", number=0):
    digest = sha256(data).hexdigest()
    path = entry_path(folder, run, number, digest)
    path.write_bytes(data)
    return Entry(run, number, digest, path, len(data))


def test_entries_are_what_was_put_there(tmp_path):
    put_there = [put(tmp_path, b"one"), put(tmp_path, b"two" * 50_000, number=1), put(tmp_path, b"3", "run-2", 12)]
    assert entries(tmp_path) == put_there


def test_a_settled_one_is_gone_and_may_be_removed_twice(tmp_path):
    entry = put(tmp_path, b"one")
    remove(entry)
    remove(entry)
    assert not list(tmp_path.iterdir())


def test_damaged_bytes_are_moved_aside(tmp_path):
    good, bad = put(tmp_path, b"good"), put(tmp_path, b"bad", number=1)
    bad.path.write_bytes(b"bat")
    assert entries(tmp_path) == [good]
    assert bad.path.with_suffix(".damaged").read_bytes() == b"bat"
    assert entries(tmp_path) == [good]


@pytest.mark.parametrize(
    "name",
    [
        "a.update",
        "x.y.update",
        f"run.0.{'0' * 63}.update",
        f"run.-1.{EMPTY}.update",
        f"run.one.{EMPTY}.update",
        f"Run 1.0.{EMPTY}.update",
    ],
)
def test_a_file_of_another_name_is_moved_aside(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert entries(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == [name.removesuffix(".update") + ".damaged"]


def test_drafts_and_other_files_are_no_entries(tmp_path):
    (tmp_path / ".run.0.x.update.1.tmp").write_bytes(b"half")
    (tmp_path / "notes.txt").write_bytes(b"mine")
    assert entries(tmp_path) == []
    assert (tmp_path / "notes.txt").exists()


def test_no_folder_no_entries(tmp_path):
    assert entries(tmp_path / "none") == []
    assert listed(tmp_path / "none") == []


def test_a_list_neither_reads_nor_moves_anything(tmp_path):
    good, bad = put(tmp_path, b"good"), put(tmp_path, b"bad", number=1)
    bad.path.write_bytes(b"bat")
    (tmp_path / "a.update").write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    assert listed(tmp_path) == [good, bad]
    assert sorted(tmp_path.iterdir()) == before


def test_an_update_that_goes_while_the_list_is_made_is_left_out(tmp_path):
    gone, good = tmp_path / f"run-0.0.{EMPTY}.update", put(tmp_path, b"good")
    gone.symlink_to(tmp_path / "nowhere")  # is in the folder and cannot be looked at, as in that moment
    assert listed(tmp_path) == [good]


def test_of_damaged_files_the_newest_stays(tmp_path):
    for number in range(3):
        put(tmp_path, b"bad", number=number).path.write_bytes(b"bat")
        assert entries(tmp_path) == []
    assert [path.name.split(".")[1] for path in tmp_path.iterdir()] == ["2"]
