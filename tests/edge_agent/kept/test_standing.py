"""What a device remembers of rounds that are done, and what it says to plans of such rounds."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge_agent import service
from edge_agent.agent import Agent
from edge_agent.kept.standing import Standing, load_standing, save_standing
from tests.edge_agent.boards import IDLE, config, echo_spec, keep, plan, spec_bytes
from tests.inline_worker import InlineWorker
from wire.errors import StateError
from wire.messages.plan import encode_plan
from wire.messages.reports import decode_ask
from wire.topics import Topics
from wire.transport import Hub, MemoryTransport, Message

TOPICS = Topics("test")


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


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_a_file_that_cannot_be_read_now_is_not_taken_for_damaged(tmp_path, monkeypatch, number):
    standing = Standing(7, {"run-1": 3})
    save_standing(tmp_path, standing)

    def fail(path, *args, **words):
        raise OSError(number, os.strerror(number), str(path))

    with monkeypatch.context() as disk:
        disk.setattr(Path, "read_text", fail)
        with pytest.raises(StateError, match=r"standing\.json cannot be read") as caught:
            load_standing(tmp_path)
        assert (caught.value.code, caught.value.remedy) == ("E-DISK", "look at the device's storage")
        assert service._facts(config(tmp_path))["starts"] is None
    assert load_standing(tmp_path) == standing
    assert [path.name for path in tmp_path.iterdir()] == ["standing.json"]


@pytest.fixture
def said(tmp_path):
    """Returns a function that gives plans to a device which is done with round 3, and returns what it asked then."""
    made, hub = config(tmp_path / "state"), Hub()
    keep(made.state_dir / "store", spec_bytes(echo_spec()))
    save_standing(made.state_dir, Standing(1, {"run-1": 3}))
    other = MemoryTransport(hub)
    other.subscribe(TOPICS.device("+", "ask"))

    def give(*plans, kept=None):
        if kept:
            hub.retained[TOPICS.device("dev-1", "plan")] = encode_plan(kept)
        agent = Agent(made, MemoryTransport(hub), InlineWorker(), lambda: 0.0, lambda: 0.5, lambda: IDLE)
        turn(agent)
        for one in plans:
            other.publish(TOPICS.device("dev-1", "plan"), encode_plan(one))
            turn(agent)
        heard = [event for event in iter(lambda: other.receive(0.0), None) if isinstance(event, Message)]
        asks = [decode_ask(event.payload) for event in heard]
        assert agent.trouble == ("", "")
        return agent, [(ask.run, ask.round, ask.code, ask.done) for ask in asks if ask.what == "decline"]

    return give


def turn(agent):
    while agent.step(0.0):
        pass


@pytest.mark.parametrize("number", [0, 2, 3])
def test_a_coordinator_that_does_not_know_what_is_done_is_told(said, number):
    assert said(plan(round=number))[1] == [("run-1", number, "E-ROUND-DONE", 3)]


def test_the_plan_that_the_broker_keeps_of_the_newest_round_is_no_news(said):
    assert said(kept=plan(round=3))[1] == []


def test_an_older_plan_that_the_broker_keeps_is(said):
    assert said(kept=plan(round=2))[1] == [("run-1", 2, "E-ROUND-DONE", 3)]


def test_other_rounds_and_other_runs_are_worked_on(said):
    assert said(plan(run="run-2", round=0), plan(round=4))[1] == []


def test_an_old_plan_ends_no_work_and_none_is_declined_whose_update_waits(said):
    agent, declined = said(plan(round=4), plan(round=2), plan(round=4))
    assert declined == [("run-1", 2, "E-ROUND-DONE", 3)]
    assert [upload.entry.round for upload in agent.uploads.values()] == [4]


def test_an_update_that_waits_out_of_order_is_not_disowned():
    assert Standing(1, {"run-1": 3}).objections("run-1", 2, [("run-1", 2)], kept=False) == ()


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
