"""What devices may say and ask that changes nothing: of others' versions, uninvited, garbled, too often, too much."""

from __future__ import annotations

import pytest

from coordinator.rollout.book import RolloutBook
from tests.coordinator.rollout.boards import TOPICS
from tests.wire.hostile.mutations import damaged
from tests.wire.messages.samples import MODEL
from wire.bits import Bits
from wire.frame import Kind, encode_frame
from wire.messages.reports import Ask, encode_ask
from wire.messages.rollout import ModelReport, encode_model_report
from wire.transport import Message


@pytest.fixture
def made(scene):
    """A roll-out whose canary, dev-0, says nothing; dev-1 and dev-2 have not been offered it."""
    made = scene("silent", "silent", "silent")
    made.start()
    made.open()
    made.settle()
    return made


def state(made):
    """Returns all that the roll-out is, in memory and on disk."""
    rows = [tuple(row) for row in made.home.database.rows("SELECT * FROM rollout_devices ORDER BY device")]
    assert RolloutBook(made.home.database).load(made.name).members == made.desk.rollout.members
    return made.desk.rollout, rows, made.offered()


def say(made, device, leaf, payload):
    made.hub.route(TOPICS.device(device, leaf), payload, False)
    made.settle(1.5)


def test_a_report_of_a_device_that_was_offered_nothing(made):
    before = state(made)
    for device in ("dev-1", "stranger"):
        say(made, device, "model", encode_model_report(ModelReport("healthy", 1, 1, 1, 1)))
    assert state(made) == before


@pytest.mark.parametrize("version", [0, 2, 1 << 53])
def test_a_report_of_another_version(made, version):
    before = state(made)
    say(made, "dev-0", "model", encode_model_report(ModelReport("healthy", version, version, version, version)))
    say(made, "dev-0", "model", encode_model_report(ModelReport("rolled-back", version)))
    assert state(made) == before


def test_a_report_that_claims_more_than_it_says(made):
    say(made, "dev-0", "model", encode_model_report(ModelReport("healthy", 1, 1, 0, 1)))
    assert made.outcomes()["dev-0"] == ""
    say(made, "dev-0", "model", encode_model_report(ModelReport("healthy", 1, 1, 1, 0)))
    assert made.outcomes()["dev-0"] == ""


def test_garbage_changes_nothing_and_is_listened_to_twenty_times(made, capsys):
    before = state(made)
    bits, good = Bits.of("rollout", "garbage"), encode_model_report(MODEL)
    for _ in range(60):
        say(made, "dev-0", "model", damaged(good, [good], bits))
    say(made, "dev-0", "model", b"")
    assert state(made) == before
    assert 5 <= capsys.readouterr().err.count("event=refused") <= 20
    for _ in range(30):
        say(made, "dev-0", "model", b"garbage")
    say(made, "dev-0", "model", encode_model_report(ModelReport("healthy", 1, 1, 1, 1)))
    assert state(made) == before  # not listened to any more: late, in the end


@pytest.mark.parametrize("leaf", ["state", "info", "ask", "up", "plan", "rcpt", "offer", "other"])
def test_garbage_elsewhere(made, leaf):
    before = state(made)
    for payload in (b"x", b"BFLT" * 9, encode_frame(Kind.INFO, {"x": "y" * 5000})):
        say(made, "dev-0" if leaf != "offer" else "stranger", leaf, payload)
    assert state(made)[:2] == before[:2]


@pytest.fixture
def heard(made, monkeypatch):
    """The questions that reached the library."""
    heard = []
    real = made.desk.source.library.ask

    class Library:
        def __getattr__(self, name):
            return getattr(made_library, name)

        def ask(self, digest, spans, device, now_s, piece_bytes=0):
            heard.append((device, digest))
            return real(digest, spans, device, now_s, piece_bytes)

    made_library = made.desk.source.library
    made.desk.source.library = Library()
    return heard


def test_only_blobs_of_this_roll_out_and_only_who_was_offered_it(made, heard):
    other = "ab" * 32
    (made.home.shelf / other).write_bytes(b"another model")
    manifest = made.desk.offer.manifest
    say(made, "dev-1", "ask", encode_ask(Ask("blob", manifest, spans=((0, 10),))))
    say(made, "dev-0", "ask", encode_ask(Ask("blob", other, spans=((0, 10),))))
    say(made, "dev-0", "ask", encode_ask(Ask("blob", spans=((0, 10),))))
    say(made, "dev-0", "ask", encode_ask(Ask("update", manifest, run="run-1", round=1, total=5)))
    say(made, "dev-0", "ask", encode_ask(Ask("decline", run="run-1", round=1, code="E-HOT")))
    assert heard == []
    say(made, "dev-0", "ask", encode_ask(Ask("blob", manifest, spans=((0, 10),))))
    say(made, "dev-0", "ask", encode_ask(Ask("blob", manifest, spans=((0, 1 << 39),))))
    assert heard == [("dev-0", manifest)] * 2
    assert made.desk.refusals == {("dev-0", "ask"): 1}


def test_more_questions_than_an_honest_device_has_are_dropped(made, heard):
    made.desk.asks.most = 100
    question = encode_ask(Ask("blob", made.desk.offer.manifest, spans=((0, 10),)))
    for _ in range(300):
        made.desk.handle(Message(TOPICS.device("dev-0", "ask"), question))
    assert len(heard) == 100
    assert made.desk.refusals == {("dev-0", "ask"): 1}
    made.clock_s += 10.0
    made.desk.handle(Message(TOPICS.device("dev-0", "ask"), question))
    assert len(heard) == 101


def test_a_device_that_never_rests_fills_no_disk(made):
    for turn in range(450):
        report = ModelReport("staged" if turn % 2 else "fetching", 1, turn % 2)
        made.hub.route(TOPICS.device("dev-0", "model"), encode_model_report(report), False)
    made.settle()
    assert made.outcomes()["dev-0"] == "failed"
    assert len(made.noted("device-model")) <= 202
    assert made.desk.rollout.status == "held"


def test_texts_of_devices_are_kept_as_texts(made):
    why = "\x1b[2J [red] '; DROP TABLE rollouts; --"
    say(made, "dev-0", "model", encode_model_report(ModelReport("fetching", 1, why=why, reason=why)))
    assert RolloutBook(made.home.database).load(made.name).members[0].report.why == why
