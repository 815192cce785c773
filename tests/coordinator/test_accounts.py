"""The coordinator's count of a message is the size of its packet as it passes a relay, whoever made it."""

from __future__ import annotations

import pytest

from coordinator.accounts import Accounts, packet_bytes
from tests.waiting import url_of, wait_for
from wire.transport import Message, Sent

TOPIC = "fl/1/home/d/dev-1/up"
REST = 2 + len(TOPIC) + 2 + 1
SIZES = [1, 100, 127 - REST, 128 - REST, 16383 - REST, 16384 - REST, 64 * 1024]


def test_a_packet_is_as_large_as_on_the_socket_both_ways(broker, relay, client):
    up, down = relay(broker.port), relay(broker.port)
    sender, taker = client(url_of(up.port), "sender"), client(url_of(down.port), "taker")
    taker.subscribe(TOPIC)
    taker.publish(TOPIC, b"to itself: then the subscription stands, and nothing is on its way any more")
    assert {type(wait_for(taker, (Message, Sent))) for _ in range(2)} == {Message, Sent}
    for size in SIZES:
        before = up.up_bytes, down.down_bytes
        token = sender.publish(TOPIC, bytes(size))
        assert wait_for(sender, Sent) == Sent(token)
        assert len(wait_for(taker, Message).payload) == size
        passed = up.up_bytes - before[0], down.down_bytes - before[1]
        assert passed == (packet_bytes(TOPIC, size), packet_bytes(TOPIC, size)), f"a payload of {size} bytes"


def test_counts_by_device_and_way_and_starts_anew():
    accounts = Accounts()
    accounts.sent("a", TOPIC, 10)
    accounts.sent("a", TOPIC, 20)
    accounts.heard("b", TOPIC, 30)
    sent = packet_bytes(TOPIC, 10) + packet_bytes(TOPIC, 20)
    assert accounts.take() == ({"b": packet_bytes(TOPIC, 30)}, {"a": sent})
    assert accounts.take() == ({}, {})


@pytest.mark.parametrize(("topic", "payload", "size"), [("a", 0, 8), ("a", 121, 129), ("a", 122, 131), ("ü", 0, 9)])
def test_by_hand(topic, payload, size):
    assert packet_bytes(topic, payload) == size
