"""One link for two: the run's pieces go first, neither starves, and no piece is sent twice."""

from __future__ import annotations

import hashlib

import pytest

from coordinator.broker import start_broker
from coordinator.library import Library
from coordinator.post import PIECES_BESIDE, Post, Source
from tests.conftest import started
from tests.waiting import settled, wait_for
from wire.pieces.chunks import HEADER_BYTES, decode_chunk
from wire.topics import Topics
from wire.transport import Down, Message, Sent, Up

PIECE_BYTES = 1000


class Slow:
    """A transport that takes everything and acknowledges nothing by itself."""

    def __init__(self):
        self.sent, self.filters = [], []

    def publish(self, topic, payload, *, retain=False):
        self.sent.append((topic, payload))
        return len(self.sent)

    def subscribe(self, *filters):
        self.filters += filters

    def unsubscribe(self, *filters):
        self.filters = [name for name in self.filters if name not in filters]


@pytest.fixture
def made(tmp_path):
    """A post whose run and whose roll-out each have been asked for a blob of many pieces."""
    run, rollout = Source(Library(tmp_path / "run")), Source(Library(tmp_path / "shelf"), most=PIECES_BESIDE)
    post = Post(Slow(), Topics("test"), 1, ["state"], [run])
    for source in (run, rollout):
        source.library.folder.mkdir()
        data = source.library.folder.name.encode() * 10_000
        digest = hashlib.sha256(data).hexdigest()
        source.library.put(digest, data)
        assert source.library.ask(digest, ((0, len(data)),), "dev-0", 0.0)
    post.note(Up(PIECE_BYTES + HEADER_BYTES))
    post.join(rollout)
    post.transport.sent.clear()
    return post


def pieces(post):
    return [(topic, decode_chunk(payload, 1 << 20).offset) for topic, payload in post.transport.sent]


def send(post):
    """Lets both send, the run first, as a host does."""
    for source in post.sources:
        post.send_pieces(source, 1.0)


def test_each_has_its_own_window_and_the_run_is_first(made):
    run, rollout = made.sources
    send(made)
    assert [len(source.flying) for source in made.sources] == [16, PIECES_BESIDE]
    assert len({topic for topic, _ in pieces(made)[:16]}) == 1
    assert made.due_s(1.0) > 0
    made.note(Sent(17))
    assert (len(run.flying), len(rollout.flying), made.due_s(1.0)) == (16, PIECES_BESIDE - 1, 0.0)


def test_neither_starves_and_every_piece_is_sent_once(made):
    send(made)
    for token in range(1, 200):
        made.note(Sent(token))
        send(made)
    assert len(pieces(made)) == len(set(pieces(made))) == 30 + 50
    assert not any(source.flying or source.library.due for source in made.sources)


def test_bytes_count_for_the_source(made):
    send(made)
    made.say(made.sources[1], "dev-1", "offer", b"xyz")
    run, rollout = (source.accounts.take()[1] for source in made.sources)
    assert (set(run), set(rollout)) == ({"dev-0"}, {"dev-0", "dev-1"})
    assert run["dev-0"] == pytest.approx(4 * rollout["dev-0"], rel=0.01)


def test_a_broken_link_empties_the_windows_and_a_new_one_hears_all_topics(made):
    send(made)
    made.note(Down("gone"))
    assert not any(source.flying for source in made.sources)
    assert made.say(made.sources[0], "dev-0", "plan", b"x") is None
    made.listen("model")
    made.transport.filters.clear()
    made.note(Up(2000))
    assert made.transport.filters == ["fl/1/test/d/+/state", "fl/1/test/d/+/model"]
    assert {source.library.payload_bytes for source in made.sources} == {2000}


@pytest.mark.parametrize("kind", ["mosquitto", "iotcore"])
def test_what_a_broker_keeps_comes_again_to_whoever_listens_again(kind, tmp_path, client):
    started(kind, tmp_path / "probe").stop()
    with start_broker(kind, tmp_path / "broker") as broker:
        listener, device = client(broker, "listener"), client(broker, "dev-0")
        device.publish("fl/1/test/d/dev-0/model", b"pinned", retain=True)
        wait_for(device, Sent)
        post = Post(listener, Topics("test"), 1, ["state"], online=True)
        for _ in range(2):
            post.listen("model")
            assert [one.payload for one in settled(listener)] == [b"pinned"]
        device.publish("fl/1/test/d/dev-0/model", b"free", retain=True)
        assert wait_for(listener, Message).payload == b"free"
        assert settled(listener) == []
