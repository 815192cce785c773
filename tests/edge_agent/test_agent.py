"""The agent against a coordinator that the test plays, over a broker in memory."""

from __future__ import annotations

import errno
from dataclasses import replace

from edge_agent.config import TrainConfig
from edge_agent.kept.outbox import entries
from edge_agent.kept.standing import load_standing
from edge_agent.worker import KILLED, ChildWorker
from tests.edge_agent.boards import IDLE, keep, plan
from tests.edge_agent.tables import TOPICS, Stubborn
from wire.frame import Kind, decode_frame
from wire.messages.plan import BlobRef, encode_plan
from wire.messages.reports import DeviceState, Receipt, decode_ask, decode_state, encode_receipt, encode_state
from wire.pieces.chunks import decode_chunk
from wire.sign import make_key, public_key, signer
from wire.transport import Hub


def test_joins_and_says_so(table):
    one = table()
    assert len(one.heard("info")) == 1
    assert one.states == ["ready"]
    assert set(one.hub.retained) == {TOPICS.device("dev-1", leaf) for leaf in ("info", "state")}


def test_a_round_from_plan_to_receipt(table):
    one = table()
    one.say("plan", encode_plan(plan()), retain=True)
    (entry,) = entries(one.agent.outbox)
    piece = decode_chunk(one.heard("up")[0], 1 << 20)
    assert bytes(piece.data) == entry.path.read_bytes()
    assert one.states[-1] == "uploading"
    one.receipt("accepted")
    one.turn()
    assert one.states[-1] == "ready"
    assert not entries(one.agent.outbox)
    assert load_standing(one.agent.config.state_dir).done == {"run-1": 0}


def test_the_same_plan_again_is_not_trained_again(table):
    one = table(worker := Stubborn(0))
    for _ in range(3):
        one.say("plan", encode_plan(plan()))
    one.receipt("accepted")
    one.say("plan", encode_plan(plan()))
    assert worker.starts == 1
    one.say("plan", encode_plan(plan(round=1)))
    assert worker.starts == 2


def test_a_killed_child_is_started_again(table):
    worker = Stubborn(2)
    one = table(worker)
    one.say("plan", encode_plan(plan()))
    assert worker.starts == 3
    assert len(entries(one.agent.outbox)) == 1
    assert not one.heard("ask")


def test_a_child_that_is_always_killed_is_a_decline(table):
    worker = Stubborn(9)
    one = table(worker, train=TrainConfig(attempts=2))
    one.say("plan", encode_plan(plan()))
    (ask,) = [decode_ask(payload) for payload in one.heard("ask")]
    assert (ask.what, ask.code, ask.reason) == ("decline", KILLED, "killed by SIGKILL")
    assert worker.starts == 2
    last = decode_state(one.heard("state")[-1])
    assert (last.state, last.code) == ("idle", KILLED)


def test_a_hot_board_declines_with_its_reason(table):
    one = table(board=replace(IDLE, temperature_c=95.0))
    one.say("plan", encode_plan(plan()))
    (ask,) = [decode_ask(payload) for payload in one.heard("ask")]
    assert (ask.run, ask.round, ask.code, ask.reason) == ("run-1", 0, "E-HOT", "95 C, at most 80")
    assert decode_state(one.heard("state")[-1]).code == "E-HOT"


def test_missing_pieces_are_sent_again_and_no_others(table):
    one = table()
    one.say("plan", encode_plan(plan()))
    first = len(one.heard("up"))
    one.receipt("missing", spans=((10, 20),))
    (piece,) = [decode_chunk(payload, 1 << 20) for payload in one.heard("up")[first:]]
    assert (piece.offset, len(piece.data)) == (10, 10)


def test_a_refusal_ends_the_update_and_is_shown(table):
    one = table()
    one.say("plan", encode_plan(plan()))
    one.receipt("refused", code="E-BASE", reason="trained from another model")
    one.turn()
    last = decode_state(one.heard("state")[-1])
    assert (last.state, last.code, last.reason) == ("idle", "E-BASE", "trained from another model")
    assert not entries(one.agent.outbox)


def test_a_receipt_for_another_update_changes_nothing(table):
    one = table()
    one.say("plan", encode_plan(plan()))
    one.say("rcpt", encode_receipt(Receipt("0" * 64, "run-1", 0, "accepted")))
    assert len(entries(one.agent.outbox)) == 1


def test_an_update_outlives_the_process_and_asks_what_became_of_it(table):
    one = table()
    one.say("plan", encode_plan(plan()))
    again = table(hub=Hub())
    assert [entry.digest for entry in entries(again.agent.outbox)] == list(again.agent.uploads)
    again.other.publish(TOPICS.coordinator, encode_state(DeviceState("ready", 1)), retain=True)
    again.turn()
    asks = [decode_ask(payload) for payload in again.heard("ask")]
    assert {(ask.what, ask.digest) for ask in asks} == {("update", next(iter(again.agent.uploads)))}
    assert decode_state(again.heard("state")[-1]).session == 2


def test_an_empty_plan_withdraws_the_work(table):
    one = table(Stubborn(0))
    waiting = replace(plan(), spec="0" * 64)
    one.say("plan", encode_plan(waiting))
    assert one.states[-1] == "fetching"
    one.say("plan", b"", retain=True)
    assert one.agent.work is None
    one.turn()
    assert one.states[-1] == "ready"


def test_unsigned_plans_are_not_taken_where_the_key_is_known(table, tmp_path):
    make_key(tmp_path / "key")
    worker = Stubborn(0)
    one = table(worker, coordinator_key=public_key(tmp_path / "key"))
    one.say("plan", encode_plan(plan()))
    one.say("plan", b"garbage")
    assert worker.starts == 0
    one.say("plan", encode_plan(plan(), signer(tmp_path / "key")))
    assert worker.starts == 1


def test_says_goodbye(table):
    one = table()
    one.agent.stop()
    one.turn(1)
    assert decode_state(one.hub.retained[TOPICS.device("dev-1", "state")]).state == "disconnected"


def test_the_update_carries_its_measurements(table):
    one = table()
    one.say("plan", encode_plan(plan()))
    (entry,) = entries(one.agent.outbox)
    header = decode_frame(entry.path.read_bytes(), Kind.UPDATE).header
    assert {"seconds", "cpu_s", "peak_bytes", "peak_source", "down_bytes"} == set(header["metrics"])
    assert (header["device"], header["examples"]) == ("dev-1", 1)


def test_a_store_does_not_grow_with_rounds_that_are_never_finished(table):
    one = table()
    for number in range(5):
        digest = keep(one.agent.store, bytes([number]) * 1000)
        ref = BlobRef(digest, 1000, "", f"{number:064x}")
        one.say("plan", encode_plan(replace(plan(round=number, base=ref.target, blobs=(ref,)), spec="f" * 64)))
        one.say("plan", b"")
    assert sum(path.stat().st_size for path in one.agent.store.iterdir()) <= 1000


def test_a_model_that_never_comes_is_waited_for_until_the_deadline(table):
    one = table()
    one.say("plan", encode_plan(replace(plan(), spec="f" * 64)))
    assert one.agent.work is not None
    one.turn(3000)
    assert (one.declined, one.agent.work) == (["E-DEADLINE"], None)


def test_a_child_that_cannot_be_started_declines_the_round(table, monkeypatch):
    monkeypatch.setattr("wire.pipe.sys.executable", "/nowhere/python")
    one = table(ChildWorker(TrainConfig()))
    one.say("plan", encode_plan(plan()))
    assert one.declined == ["E-STATE"]


def test_declining_ends_the_child_and_its_late_result_is_nobodys(table):
    one = table(worker := Stubborn(0))
    worker.poll = lambda now_s: None
    one.say("plan", encode_plan(plan()))
    assert one.agent.work.training
    one.agent._decline("run-1", 0, OSError(errno.ENOSPC, "No space left on device"))
    assert worker.inner.result is one.agent.work is None


def test_an_upload_of_an_older_round_is_asked_about_when_a_new_plan_comes(table):
    one = table()
    one.say("plan", encode_plan(plan()))
    (digest,) = one.agent.uploads
    one.seen.clear()
    one.say("plan", encode_plan(plan(round=1)))
    assert ("update", digest) in [(ask.what, ask.digest) for ask in map(decode_ask, one.heard("ask"))]


def test_nobody_is_asked_while_the_coordinator_says_that_it_is_away(table):
    one = table()
    one.say("plan", encode_plan(plan()))
    one.other.publish(TOPICS.coordinator, encode_state(DeviceState("disconnected", 1)), retain=True)
    one.turn()
    one.seen.clear()
    one.turn(3000)
    assert not one.heard("ask")
    one.other.publish(TOPICS.coordinator, encode_state(DeviceState("ready", 2)), retain=True)
    one.turn()
    assert len(one.heard("ask")) == 1
