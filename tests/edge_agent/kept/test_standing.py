from __future__ import annotations

import pytest

from edge_agent.kept.standing import Standing, load_standing, save_standing


def test_comes_back_as_it_was_saved(tmp_path):
    standing = Standing(7, {"run-1": 3, "run-2": 0})
    save_standing(tmp_path, standing)
    assert load_standing(tmp_path) == standing
    assert [path.name for path in tmp_path.iterdir()] == ["standing.json"]


def test_a_new_device_has_done_nothing(tmp_path):
    assert load_standing(tmp_path) == Standing(0, {})
    assert not Standing().settled("run-1", 0)


def test_settled_up_to_the_newest_round():
    standing = Standing(1).settle("run-1", 3).settle("run-1", 1)
    assert [standing.settled("run-1", number) for number in (0, 3, 4)] == [True, True, False]
    assert not standing.settled("run-2", 0)
    assert standing.session == 1


def test_the_oldest_runs_are_forgotten():
    standing = Standing()
    for number in range(25):
        standing = standing.settle(f"run-{number}", 0)
    assert list(standing.done) == [f"run-{number}" for number in range(5, 25)]


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b"[]", b'{"session": 1}', b'{"done": {}, "session": "x"}', b'{"done": 5, "session": 1}', b"\xff"],
)
def test_a_damaged_file_is_moved_aside_not_deleted(tmp_path, damage):
    (tmp_path / "standing.json").write_bytes(damage)
    assert load_standing(tmp_path) == Standing()
    assert (tmp_path / "standing.damaged").read_bytes() == damage
    assert not (tmp_path / "standing.json").exists()


def test_who_settled_last_is_forgotten_last_across_starts(tmp_path):
    standing = Standing()
    for number in reversed(range(20)):
        standing = standing.settle(f"run-{number:02d}", 0)
    save_standing(tmp_path, standing.settle("run-19", 1))
    again = load_standing(tmp_path).settle("run-00a", 0)
    assert list(again.done) == [*(f"run-{number:02d}" for number in reversed(range(18))), "run-19", "run-00a"]
    assert again.settled("run-19", 1)


def test_a_file_of_before_is_read(tmp_path):
    (tmp_path / "standing.json").write_text('{"done":{"run-1":3,"run-2":0},"session":7}')
    assert load_standing(tmp_path) == Standing(7, {"run-1": 3, "run-2": 0})
