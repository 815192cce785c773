"""The files of a device's memory: which one a round starts from, what becomes of the others, and of damaged ones."""

from __future__ import annotations

import os

import numpy as np
import pytest

from edge_agent.kept.memory import memory_path, newest_memory, prune_memory, settle_memory
from edge_agent.training.recall import recall, remember
from wire.errors import StateError
from wire.frame import Kind, encode_frame


def arrays(number):
    return {"residual/w": np.full((2, 3), number, np.float32), "personal/b": np.float32([number, -1])}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def number_of(found):
    return int(found[0]["residual/w"][0, 0]), found[1]


def test_comes_back_as_it_was(tmp_path):
    kept = {**arrays(3), "scalar": np.float32(7).reshape(()), "none": np.zeros((0, 4), np.float32)}
    remember(tmp_path / "memory", "run-1", 3, kept)
    assert names(tmp_path / "memory") == ["run-1.3.pending.memory"]
    found, fate = recall(tmp_path / "memory", "run-1", 4)
    assert fate == "pending"
    assert list(found) == list(kept)
    for name, values in kept.items():
        assert (found[name].dtype, found[name].shape) == (np.float32, values.shape)
        assert found[name].tobytes() == values.tobytes()


def test_a_first_round_starts_from_nothing(tmp_path):
    assert recall(tmp_path / "never made", "run-1", 0) == ({}, "")
    remember(tmp_path, "run-1", 0, arrays(0))
    assert recall(tmp_path, "run-1", 0) == ({}, "")
    assert recall(tmp_path, "run-2", 9) == ({}, "")
    assert recall(tmp_path, "run", 9) == ({}, "")


def test_a_round_starts_from_the_newest_before_it(tmp_path):
    """Missed rounds leave gaps, and a round that is done again does not start from its own first try."""
    for number in (2, 5, 10):
        remember(tmp_path, "run-1", number, arrays(number))
    assert number_of(recall(tmp_path, "run-1", 10)) == (5, "pending")
    assert names(tmp_path) == ["run-1.10.pending.memory", "run-1.5.pending.memory"]
    assert number_of(recall(tmp_path, "run-1", 10)) == (5, "pending")
    assert number_of(recall(tmp_path, "run-1", 11)) == (10, "pending")
    assert names(tmp_path) == ["run-1.10.pending.memory"]


@pytest.mark.parametrize("fate", ["accepted", "refused"])
def test_the_receipt_says_what_became_of_it(tmp_path, fate):
    remember(tmp_path, "run-1", 4, arrays(4))
    settle_memory(tmp_path, "run-1", 3, "refused")
    settle_memory(tmp_path, "run-1", 4, fate)
    settle_memory(tmp_path, "run-1", 4, fate)  # a receipt may come twice
    assert names(tmp_path) == [f"run-1.4.{fate}.memory"]
    assert number_of(recall(tmp_path, "run-1", 5)) == (4, fate)


def test_a_round_done_again_replaces_its_own_first_try(tmp_path):
    remember(tmp_path, "run-1", 4, arrays(4))
    remember(tmp_path, "run-1", 4, arrays(40))
    assert number_of(recall(tmp_path, "run-1", 5)) == (40, "pending")


def test_only_the_newest_runs_are_kept(tmp_path):
    for at, run in enumerate(["a", "b", "c", "d", "e", "f"]):
        remember(tmp_path, run, 7, arrays(at))
        os.utime(memory_path(tmp_path, run, 7), (1000 + at, 1000 + at))
    prune_memory(tmp_path, "e", 8)
    assert [name[0] for name in names(tmp_path)] == ["c", "d", "e", "f"]


def test_the_run_that_asks_is_kept_however_old(tmp_path):
    for at, run in enumerate(["a", "b", "c", "d", "e", "f"]):
        remember(tmp_path, run, 7, arrays(at))
        os.utime(memory_path(tmp_path, run, 7), (1000 + at, 1000 + at))
    prune_memory(tmp_path, "a", 8)
    assert [name[0] for name in names(tmp_path)] == ["a", "d", "e", "f"]


def test_without_a_clock_the_order_of_use_counts(tmp_path):
    for at, run in enumerate(["a", "b", "c", "d"]):
        remember(tmp_path, run, 7, arrays(at))
        os.utime(memory_path(tmp_path, run, 7), (4e9 + at, 4e9 + at))  # of a time when the clock was ahead
    for run in ("e", "f", "a"):
        prune_memory(tmp_path, run, 8)
        remember(tmp_path, run, 8, arrays(8))
    prune_memory(tmp_path, "g", 8)
    assert [name[0] for name in names(tmp_path)] == ["a", "e", "f"]


def test_files_of_others_are_left_alone(tmp_path):
    for name in ("readme.txt", "x.memory", "run-1.1.lost.memory", "run-1.x.pending.memory"):
        (tmp_path / name).write_text("mine")
    remember(tmp_path, "run-1", 1, arrays(1))
    remember(tmp_path, "run-1", 2, arrays(2))
    recall(tmp_path, "run-1", 3)
    assert len(names(tmp_path)) == 5
    assert newest_memory(tmp_path, "run-1", 9).round == 2


def broken(case, good):
    wrong = {
        "empty": b"",
        "cut": good[:-9],
        "flipped": good[:40] + bytes([good[40] ^ 1]) + good[41:],
        "another kind": encode_frame(Kind.BLOB, {"arrays": []}),
        "no list": encode_frame(Kind.CHECKPOINT, {}),
        "more values": encode_frame(Kind.CHECKPOINT, {"arrays": []}, bytes(4)),
        "fewer values": encode_frame(Kind.CHECKPOINT, {"arrays": [["a", [3]]]}, bytes(4)),
        "no shape": encode_frame(Kind.CHECKPOINT, {"arrays": [["a", ["3"]]]}, bytes(12)),
        "no pair": encode_frame(Kind.CHECKPOINT, {"arrays": [3]}, bytes(12)),
        "torn value": encode_frame(Kind.CHECKPOINT, {"arrays": [["a", [3]]]}, bytes(13)),
        "negative": encode_frame(Kind.CHECKPOINT, {"arrays": [["a", [-3]]]}, bytes(12)),
        "negative first": encode_frame(Kind.CHECKPOINT, {"arrays": [["a", [-3]], ["b", [6]]]}, bytes(12)),
    }
    return wrong[case]


@pytest.mark.parametrize(
    "case",
    ["empty", "cut", "flipped", "another kind", "no list", "more values", "fewer values", "no shape", "no pair",
     "torn value", "negative", "negative first"],
)  # fmt: skip
def test_a_damaged_memory_is_moved_aside_and_the_device_goes_on_without(tmp_path, case):
    remember(tmp_path, "run-1", 1, arrays(1))
    remember(tmp_path, "run-1", 2, arrays(2))
    path = memory_path(tmp_path, "run-1", 2)
    path.write_bytes(broken(case, path.read_bytes()))
    with pytest.raises(StateError, match=r"run-1\.2\.pending\.memory cannot be read") as caught:
        recall(tmp_path, "run-1", 3)
    assert caught.value.code == "E-MEMORY-FILE"
    assert names(tmp_path) == ["run-1.2.pending.damaged"]
    assert recall(tmp_path, "run-1", 3) == ({}, "")


def test_of_damaged_memories_the_newest_stays(tmp_path):
    for number in (1, 2):
        memory_path(tmp_path, "run-1", number).write_bytes(b"torn")
        with pytest.raises(StateError):
            recall(tmp_path, "run-1", number + 1)
    assert names(tmp_path) == ["run-1.2.pending.damaged"]
