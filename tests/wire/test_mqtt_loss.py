"""Links that break, stall, lie or crawl."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from time import monotonic

import pytest

from tests.waiting import settled, url_of, wait_for
from wire.links.link import Backoff
from wire.transport import Down, Message, Sent, Up, Will


def test_will_is_sent_when_the_link_breaks(broker, client, relay):
    between = relay(broker.port)
    watcher = client(broker, "watcher")
    watcher.subscribe("state/#")
    settled(watcher)
    client(url_of(between.port), "fragile", will=Will("state/fragile", b"offline"))
    between.cut()
    assert wait_for(watcher, Message) == Message("state/fragile", b"offline")
    late = client(broker, "late")
    late.subscribe("state/#")
    assert wait_for(late, Message) == Message("state/fragile", b"offline", retained=True)


def test_farewell_that_does_not_arrive_leaves_the_word_to_the_will(broker, client, relay):
    between = relay(broker.port)
    watcher = client(broker, "watcher")
    watcher.subscribe("state/#")
    settled(watcher)
    leaving = client(url_of(between.port), "leaving", will=Will("state/leaving", b"offline"))
    between.stalled = True
    leaving.close(Message("state/leaving", b"left"))
    between.cut()
    assert wait_for(watcher, Message) == Message("state/leaving", b"offline")


def test_link_comes_back_after_the_broker_was_killed(broker, client):
    taker = client(broker, "taker")
    broker.kill()
    wait_for(taker, Down)
    assert taker.publish("lost", b"while down") == 1
    broker.restart()
    seen = []
    wait_for(taker, Up, seen)
    assert {type(event) for event in seen} <= {Down}
    taker.subscribe("back")
    token = taker.publish("back", b"again")
    assert {wait_for(taker, (Sent, Message)), wait_for(taker, (Sent, Message))} == {
        Sent(token),
        Message("back", b"again"),
    }


@pytest.mark.parametrize("cut", ["on the way up", "before the answer"])
def test_nothing_is_sent_again_after_a_cut(broker, client, relay, cut):
    between = relay(broker.port)
    taker = client(broker, "taker")
    taker.subscribe("t")
    settled(taker)
    sender = client(url_of(between.port), "sender")
    if cut == "on the way up":
        between.cut_up_after(30_000)
    else:
        between.cut_down_after(1)
    sender.publish("t", bytes(60_000))
    wait_for(sender, Down)
    wait_for(sender, Up)
    token = sender.publish("t", b"after")
    seen = []
    assert wait_for(sender, Sent, seen) == Sent(token)
    assert [event for event in seen if not isinstance(event, Down | Up)] == []
    before = [] if cut == "on the way up" else [bytes(60_000)]
    assert [message.payload for message in settled(taker)] == [*before, b"after"]


def test_attempts_are_spaced_by_the_back_off(client, relay):
    between = relay(1)
    between.refusing = True
    caller = client(url_of(between.port), "caller", up=False, backoff=Backoff(0.5, 30.0), uniform=lambda: 1.0)
    ends_s, downs = monotonic() + 3.0, 0
    while monotonic() < ends_s:
        downs += isinstance(caller.receive(max(0.0, ends_s - monotonic())), Down)
    assert 1 <= between.refused <= 3  # at 0, 0.5 and 1.5 s; the next would be at 3.5 s
    assert downs <= between.refused


@dataclass
class Recorder:
    lasted_s: float
    asked: list[int] = field(default_factory=list)

    def wait_s(self, failures, uniform):
        self.asked.append(failures)
        return 0.0


@pytest.mark.parametrize(("lasted_s", "failures"), [(0.0, [0, 0, 0]), (3600.0, [0, 1, 2])])
def test_back_off_starts_anew_after_a_link_that_lasted(broker, client, relay, lasted_s, failures):
    between, recorder = relay(broker.port), Recorder(lasted_s)
    caller = client(url_of(between.port), "caller", backoff=recorder)
    for _ in failures:
        between.cut()
        wait_for(caller, Down)
        wait_for(caller, Up)
    assert recorder.asked == failures


def test_slow_link_carries_everything_and_resumes_after_a_cut(broker, client, relay):
    between = relay(broker.port)
    taker = client(broker, "taker")
    taker.subscribe("t")
    settled(taker)
    sender = client(url_of(between.port), "sender")
    between.rate_bytes_s, between.delay_s = 100_000.0, 0.01
    between.cut_up_after(70_000)
    left = [bytes([number]) * 20_000 for number in range(5)]
    while left:
        token = sender.publish("t", left[0])
        answer = wait_for(sender, (Sent, Down))
        if answer == Sent(token):
            left.pop(0)
        else:
            wait_for(sender, Up)
    assert len(between.connections) == 2
    assert [message.payload[0] for message in settled(taker)] == list(range(5))


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 100,
        b"\x20\x03\x00\x00\x05",
        b"\x20\x00",
        b"\x20\x09\x00\x00\x06\x22\x00\x0a\x22\x00\x0a",
        b"\x20\x03\x00\x00\x00" + b"\x30\x05\x00\x02\xff\xfe\x00",
        b"\x20\x03\x00\x00\x00" + b"\x40\x01\x00",
        b"\x20\x03\x00\x00\x00" + b"\x90\x03\x00\x01\x77",
        b"\x20\x03\x00\x00\x00" + b"\x20\xff\xff\xff\xff\xff",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_what_is_no_mqtt_ends_the_link_and_not_the_caller(client, garbage):
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = client(url_of(server.getsockname()[1]), "caller", up=False, connack_wait_s=0.5)
        assert caller.receive(0) is None
        with server.accept()[0] as far:
            far.recv(1000)
            far.sendall(garbage)
            wait_for(caller, Down)


def test_silent_listener_is_given_up(client):
    with socket.create_server(("127.0.0.1", 0)) as server:
        caller = client(url_of(server.getsockname()[1]), "caller", up=False, connack_wait_s=0.2)
        assert wait_for(caller, Down) == Down("no CONNACK in 0.2 s")


def test_silent_broker_is_given_up_by_the_keepalive(broker, client, relay):
    between = relay(broker.port)
    caller = client(url_of(between.port), "caller", keepalive_s=1)
    settled(caller)
    between.stalled = True
    wait_for(caller, Down)


def test_pings_keep_an_idle_link(broker, client):
    idle = client(broker, "idle", keepalive_s=1)
    assert idle.receive(2.5) is None
