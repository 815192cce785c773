"""An upload against a transport that notes what is published and answers when told."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256

import pytest

from edge_agent.kept.outbox import Entry
from edge_agent.upload import Upload
from wire.messages.reports import Ask
from wire.pieces.chunks import HEADER_BYTES, decode_chunk

DATA = bytes(range(256)) * 40  # 10240 bytes: ten pieces of 1024


@dataclass
class Broker:
    """Takes what is published; tokens count from 1."""

    pieces: list = field(default_factory=list)

    def publish(self, topic, payload, *, retain=False):
        assert (topic, retain) == ("up", False)
        self.pieces.append(decode_chunk(payload, 1 << 20))
        return len(self.pieces)

    @property
    def spans(self):
        return [(piece.offset, piece.offset + len(piece.data)) for piece in self.pieces]


@pytest.fixture
def entry(tmp_path):
    path = tmp_path / "update"
    path.write_bytes(DATA)
    return Entry("run-1", 3, sha256(DATA).hexdigest(), path, len(DATA))


def upload(entry, piece_bytes=1024, spread=0.5):
    return Upload(entry, piece_bytes + HEADER_BYTES, lambda: spread)


def flow(up, broker, now_s=0.0):
    """Sends and acknowledges until nothing is due or in flight."""
    while up.due or up.flying:
        up.send(broker, "up", now_s)
        for token in list(up.flying):
            assert up.sent(token, now_s)


def joined(broker):
    data = bytearray(len(DATA))
    for piece in broker.pieces:
        data[piece.offset : piece.offset + len(piece.data)] = piece.data
    return bytes(data)


def test_at_most_four_pieces_in_flight(entry):
    up, broker = upload(entry), Broker()
    up.begin(0.0)
    up.send(broker, "up", 0.0)
    up.send(broker, "up", 0.0)
    assert len(broker.pieces) == len(up.flying) == 4
    assert up.sent(1, 1.0)
    up.send(broker, "up", 1.0)
    assert broker.spans == [(at, at + 1024) for at in range(0, 5 * 1024, 1024)]


def test_every_byte_goes_up_once(entry):
    up, broker = upload(entry), Broker()
    up.begin(0.0)
    flow(up, broker)
    assert joined(broker) == DATA
    assert sum(len(piece.data) for piece in broker.pieces) == len(DATA)
    assert {piece.digest for piece in broker.pieces} == {entry.digest}
    assert (len(broker.pieces), {piece.total for piece in broker.pieces}) == (10, {len(DATA)})


def test_a_cut_makes_pieces_smaller_down_to_a_floor(entry):
    up, broker = upload(entry, 8192), Broker()
    sizes = []
    for _ in range(6):
        up.begin(0.0)
        up.send(broker, "up", 0.0)
        sizes.append(len(broker.pieces[-1].data) if len(broker.pieces) == 1 else max(e - s for s, e in broker.spans))
        broker.pieces.clear()
        up.cut()
        assert not up.due
        assert not up.flying
    assert sizes[0] == 8192
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[1] < 5000
    assert sizes[-1] == 1024


def test_a_cut_while_nothing_flies_is_not_the_pieces_fault(entry):
    up = upload(entry, 8192)
    up.begin(0.0)
    up.cut()
    assert up.payload_bytes == 8192 + HEADER_BYTES


def test_resume_sends_just_the_missing_ranges(entry):
    up, broker = upload(entry), Broker()
    up.begin(0.0)
    up.send(broker, "up", 0.0)
    up.cut()
    broker.pieces.clear()
    up.resume(((100, 200), (5000, 7500)), 9.0)
    flow(up, broker, 9.0)
    assert broker.spans == [(100, 200), (5000, 6024), (6024, 7048), (7048, 7500)]
    assert joined(broker)[5000:7500] == DATA[5000:7500]


def test_a_refused_piece_is_a_cut(entry):
    up, broker = upload(entry, 4096), Broker()
    up.begin(0.0)
    up.send(broker, "up", 0.0)
    assert up.unsent(1, 5.0)
    assert (list(up.due), up.flying) == ([], {})
    assert up.payload_bytes < 4096
    assert up.overdue_s(5.0) > 0


def test_answers_for_others_are_left_alone(entry):
    up, broker = upload(entry), Broker()
    up.begin(0.0)
    up.send(broker, "up", 0.0)
    before = dict(up.flying)
    assert not up.sent(99, 1.0)
    assert not up.unsent(99, 1.0)
    assert up.flying == before


def test_the_question_names_the_update(entry):
    up = upload(entry)
    assert up.question(0.0) == Ask("update", entry.digest, "run-1", 3, len(DATA))
    assert not up.due


def test_silence_asks_after_two_seconds_and_then_ever_more_rarely(entry):
    up, now_s, waits = upload(entry), 0.0, []
    up.resume((), now_s)
    for _ in range(9):
        waits.append(up.overdue_s(now_s))
        now_s += waits[-1]
        assert up.overdue_s(now_s) <= 0
        up.question(now_s)
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]


@pytest.mark.parametrize(("spread", "second"), [(0.0, 3.0), (0.999999, 5.0)])
def test_waits_are_spread_by_a_quarter_to_both_sides(entry, spread, second):
    up = upload(entry, spread=spread)
    up.begin(0.0)
    up.question(0.0)
    assert up.overdue_s(0.0) == pytest.approx(second, abs=1e-4)


def test_news_makes_patience_short_again(entry):
    up = upload(entry)
    for _ in range(6):
        up.question(0.0)
    up.resume(((0, 1),), 100.0)
    assert up.overdue_s(100.0) == 2.0


def test_each_acknowledged_piece_puts_the_question_off(entry):
    up, broker = upload(entry), Broker()
    up.begin(0.0)
    up.send(broker, "up", 0.0)
    up.sent(1, 1.5)
    assert up.overdue_s(2.0) == 1.5


def test_a_full_window_neither_reads_nor_asks(entry):
    """On a slow link the agent waits for the broker: it does not spin, and asks nothing while pieces are due."""
    up, broker = upload(entry), Broker()
    up.begin(0.0)
    up.send(broker, "up", 0.0)
    entry.path.unlink()
    up.send(broker, "up", 9.0)
    assert len(up.flying) == 4
    assert up.due
