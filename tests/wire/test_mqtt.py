"""Messages over both brokers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from time import monotonic

import pytest

from tests.waiting import settled, url_of, wait_for
from wire.errors import ConfigError, TransportError
from wire.links.link import Backoff, Link
from wire.links.mqtt import MqttTransport
from wire.transport import Down, Message, Sent, Unsent, Up, Will


def test_a_message_goes_round(broker, client):
    sender, taker = client(broker, "sender"), client(broker, "taker")
    taker.subscribe("a/+", "b/#")
    settled(taker)
    token = sender.publish("a/1", b"\x00\xff" * 20_000)
    assert wait_for(taker, Message) == Message("a/1", b"\x00\xff" * 20_000)
    assert wait_for(sender, Sent) == Sent(token)


def test_order_is_kept_beyond_the_window(broker, client):
    sender, taker = client(broker, "sender"), client(broker, "taker")
    taker.subscribe("s")
    settled(taker)
    tokens = [sender.publish("s", number.to_bytes(2, "big")) for number in range(300)]
    assert [wait_for(sender, (Sent, Unsent)) for _ in tokens] == [Sent(token) for token in tokens]
    assert [int.from_bytes(wait_for(taker, Message).payload, "big") for _ in tokens] == list(range(300))


def test_no_more_is_unanswered_than_the_broker_allows(client):
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = client(url_of(server.getsockname()[1]), "sender", up=False)
        assert sender.receive(0) is None
        with server.accept()[0] as far:
            far.recv(1000)
            far.sendall(b"\x20\x06\x00\x00\x03\x21\x00\x02")  # CONNACK with a Receive Maximum of 2
            wait_for(sender, Up)
            for number in range(3):
                sender.publish("t", b"message %d" % number)
            assert far.recv(1000).count(b"message") == 2
            far.sendall(b"\x40\x02\x00\x01")
            assert wait_for(sender, Sent) == Sent(1)
            assert b"message 2" in far.recv(1000)


def test_unsubscribed_topics_stay_away(broker, client):
    sender, taker = client(broker, "sender"), client(broker, "taker")
    taker.subscribe("a", "b")
    settled(taker)
    taker.unsubscribe("a")
    settled(taker)
    sender.publish("a", b"1")
    sender.publish("b", b"2")
    assert wait_for(taker, Message) == Message("b", b"2")


def test_retained_messages_wait_and_can_be_cleared(broker, client):
    sender = client(broker, "sender")
    sender.publish("r/1", b"old", retain=True)
    sender.publish("r/1", b"new", retain=True)
    assert [wait_for(sender, (Sent, Unsent)) for _ in range(2)] == [Sent(1), Sent(2)]
    early = client(broker, "early")
    early.subscribe("r/#")
    assert wait_for(early, Message) == Message("r/1", b"new", retained=True)
    sender.publish("r/1", b"", retain=True)
    assert wait_for(early, Message) == Message("r/1", b"")
    late = client(broker, "late")
    late.subscribe("r/#")
    assert settled(late) == []


def test_farewell_replaces_the_will(broker, client):
    watcher = client(broker, "watcher")
    watcher.subscribe("state/#")
    settled(watcher)
    leaving = client(broker, "leaving", will=Will("state/leaving", b"offline"))
    leaving.close(Message("state/leaving", b"left"))
    assert wait_for(watcher, Message) == Message("state/leaving", b"left")
    assert settled(watcher) == []
    with pytest.raises(TransportError):
        leaving.receive(0)


def test_nobody_listening_is_unsent_unless_retained(mosquitto, client):
    sender = client(mosquitto(), "sender")
    token = sender.publish("nobody", b"x")
    answer = wait_for(sender, (Sent, Unsent))
    assert (answer.token, answer.topic, answer.code) == (token, "nobody", 0x10)
    token = sender.publish("nobody", b"x", retain=True)
    assert wait_for(sender, (Sent, Unsent)) == Sent(token)


def test_forbidden_topic_is_unsent(mosquitto, client, tmp_path):
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite open/#\n")
    sender = client(mosquitto(acl_file=str(acl)), "sender")
    sender.subscribe("open/#")
    shut, opened = sender.publish("shut/1", b"x", retain=True), sender.publish("open/1", b"x")
    answer = wait_for(sender, (Sent, Unsent))
    assert (answer.token, answer.topic, answer.code) == (shut, "shut/1", 0x87)
    assert wait_for(sender, (Sent, Unsent)) == Sent(opened)


def test_payload_over_the_announced_limit_is_refused_here(mosquitto, client):
    sender = client(mosquitto(max_packet_size="4096"), "sender", up=False)
    assert wait_for(sender, Up) == Up(4096 - 512)
    topic = "t" * 496
    tokens = [
        sender.publish(topic, bytes(4096 - 511), retain=True),
        sender.publish(topic, bytes(4096 - 512), retain=True),
    ]
    first, second = wait_for(sender, (Sent, Unsent, Down)), wait_for(sender, (Sent, Unsent, Down))
    assert (first.token, first.code, second) == (tokens[0], 0x95, Sent(tokens[1]))


def test_payload_over_the_chunk_limit_is_refused_here(broker, client):
    sender = client(broker, "sender", up=False, chunk_bytes=1000)
    assert wait_for(sender, Up) == Up(1000)
    sender.subscribe("t")
    sender.publish("t", bytes(1001))
    assert wait_for(sender, (Sent, Unsent, Down)).code == 0x95
    sender.publish("t", bytes(1000))
    assert wait_for(sender, (Sent, Unsent, Down)) == Sent(2)


def test_messages_over_our_own_limit_are_held_back_by_the_broker(mosquitto, client):
    running = mosquitto(max_packet_size=str(8 * 1024 * 1024))
    sender, taker = client(running, "sender", chunk_bytes=4 * 1024 * 1024), client(running, "taker")
    taker.subscribe("t")
    settled(taker)
    sender.publish("t", bytes(2 * 1024 * 1024))
    sender.publish("t", b"small")
    assert wait_for(taker, Message) == Message("t", b"small")


def test_wake_descriptor_ends_the_wait(broker, client):
    idle, (reading, writing) = client(broker, "idle"), os.pipe()
    started_s = monotonic()
    timer = threading.Timer(0.2, os.write, (writing, b"x"))
    timer.start()
    assert idle.receive(60, [reading]) is None
    broker.kill()
    wait_for(idle, Down)
    slow = client(broker, "slow", up=False, backoff=Backoff(base_s=3600, cap_s=3600), uniform=lambda: 1.0)
    assert isinstance(slow.receive(60, [reading]), Down)
    assert slow.receive(60, [reading]) is None
    timer.join()
    os.close(reading)
    os.close(writing)
    assert monotonic() - started_s < 60  # not a figure: one wait that is not ended takes this long


def test_wait_without_anything_returns_none(broker, client):
    idle = client(broker, "idle")
    assert idle.receive(0) is None
    assert idle.receive(0.05) is None


@pytest.mark.parametrize("topic", ["", "a/+", "#", "x" * 497])
def test_bad_topics_are_refused(topic):
    with pytest.raises(TransportError):
        MqttTransport(Link("127.0.0.1", 1), "x").publish(topic, b"")


def test_bad_filters_are_refused(broker, client):
    with pytest.raises(TransportError, match="a/#/b"):
        client(broker, "x").subscribe("a/#/b")


@pytest.mark.parametrize(("name", "keepalive_s"), [("", 60), ("x", 0), ("x", 65536)])
def test_bad_client_settings_are_refused(name, keepalive_s):
    with pytest.raises(ConfigError):
        MqttTransport(Link("127.0.0.1", 1), name, keepalive_s=keepalive_s)


def test_import_loads_no_numpy():
    code = "import sys, wire.links.mqtt; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
