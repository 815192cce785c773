"""A disk that is full, read-only or worn out under a running agent, and what killed children leave on it."""

from __future__ import annotations

import errno
import os

import pytest

from edge_agent import agent as agent_module
from edge_agent.kept.outbox import entries
from edge_agent.kept.standing import load_standing
from edge_agent.upload import Upload
from tests.edge_agent.boards import plan
from tests.edge_agent.tables import Stubborn
from wire.errors import StateError
from wire.messages.plan import encode_plan
from wire.messages.reports import decode_ask, decode_state


def failing(number):
    def fail(*args, **words):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("name", ["settle_memory", "remove"])
@pytest.mark.parametrize(("number", "code"), [(errno.EROFS, "E-DISK"), (errno.ENOSPC, "E-DISK-SPACE")])
def test_a_receipt_that_cannot_be_booked_is_told_and_asked_for_again(table, monkeypatch, name, number, code):
    one = table()
    one.say("plan", encode_plan(plan()))
    (digest,) = one.agent.uploads
    with monkeypatch.context() as disk:
        disk.setattr(agent_module, name, failing(number))
        one.receipt("accepted")
        one.turn()
    last = decode_state(one.heard("state")[-1])
    assert (last.state, last.code) == ("uploading", code)
    one.seen.clear()
    one.turn(1000)
    assert ("update", digest) in [(ask.what, ask.digest) for ask in map(decode_ask, one.heard("ask"))]
    one.receipt("accepted")
    one.turn()
    assert (one.states[-1], entries(one.agent.outbox)) == ("ready", [])
    assert load_standing(one.agent.config.state_dir).done == {"run-1": 0}


def test_an_update_that_cannot_be_read_any_more_is_told(table, monkeypatch):
    one = table()
    monkeypatch.setattr(Upload, "send", failing(errno.EIO))
    one.say("plan", encode_plan(plan()))
    assert decode_state(one.heard("state")[-1]).code == "E-DISK"
    assert not one.agent.uploads


@pytest.mark.parametrize("end", ["withdrawn", "replaced", "declined"])
def test_an_update_whose_result_was_not_heard_goes_up_when_its_work_ends(table, end):
    """The child renames the update into the outbox first, and says so after that."""
    one = table(worker := Stubborn(0))
    worker.poll = lambda now_s: None
    one.say("plan", encode_plan(plan()))
    (entry,) = entries(one.agent.outbox)
    assert one.agent.work.training
    assert not one.agent.uploads
    if end == "declined":
        one.agent._decline("run-1", 0, OSError(errno.EIO, "Input/output error"))
        one.turn()
    else:
        one.say("plan", b"" if end == "withdrawn" else encode_plan(plan(round=1)))
    assert list(one.agent.uploads) == [entry.digest]
    assert ("update", entry.digest) in [(ask.what, ask.digest) for ask in map(decode_ask, one.heard("ask"))]
    one.receipt("refused", code="E-ROUND-CLOSED")
    assert entry not in entries(one.agent.outbox)


def test_drafts_of_killed_children_are_swept_at_the_start(table):
    state = table().agent.config.state_dir
    drafts = [state / folder / ".x.7.tmp" for folder in ("", "store", "outbox", "memory")]
    for draft in drafts:
        draft.parent.mkdir(exist_ok=True)
        draft.write_bytes(b"half")
    table()
    assert [draft for draft in drafts if draft.exists()] == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path, table):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "outbox").write_text("no folder")
    with pytest.raises(StateError, match=r"state/outbox cannot be written: File exists") as caught:
        table()
    assert caught.value.code == "E-DISK"


def test_an_update_that_cannot_be_read_at_the_start_stays(table, monkeypatch):
    one = table()
    one.say("plan", encode_plan(plan()))
    (entry,) = entries(one.agent.outbox)
    with monkeypatch.context() as disk:
        disk.setattr("edge_agent.kept.outbox.digest_file", failing(errno.EIO))
        assert not table().agent.uploads
    assert list(table().agent.uploads) == [entry.digest]
