"""The transport in memory: what a broker would do with retained messages, wills and unheard messages."""

from __future__ import annotations

import pytest

from wire.transport import Hub, MemoryTransport, Message, Sent, Unsent, Up, Will, matches


def events(transport: MemoryTransport) -> list[object]:
    return list(iter(lambda: transport.receive(0), None))


@pytest.mark.parametrize(
    ("pattern", "topic", "covers"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/b", "a", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("+/b", "x/b", True),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "b", False),
        ("#", "a/b", True),
        ("a/+/c", "a//c", True),
    ],
)
def test_filters(pattern, topic, covers):
    assert matches(pattern, topic) == covers


def test_the_link_comes_up_first():
    assert events(MemoryTransport(Hub(), 1000)) == [Up(1000)]


def test_a_message_reaches_every_subscriber_once():
    hub = Hub()
    one, two, three = (MemoryTransport(hub) for _ in range(3))
    one.subscribe("a/+", "a/b")
    two.subscribe("a/b")
    for transport in (one, two, three):
        events(transport)
    token = three.publish("a/b", b"x")
    assert events(one) == events(two) == [Message("a/b", b"x")]
    assert events(three) == [Sent(token)]


def test_what_nobody_hears_is_unsent_unless_retained():
    transport = MemoryTransport(Hub())
    events(transport)
    first, second = transport.publish("a", b"x"), transport.publish("a", b"x", retain=True)
    assert first != second
    assert events(transport) == [Unsent(first, "a", 0x10, "no matching subscribers"), Sent(second)]


def test_retained_messages_wait_and_an_empty_one_clears():
    hub = Hub()
    writer, reader = MemoryTransport(hub), MemoryTransport(hub)
    writer.publish("a/1", b"old", retain=True)
    writer.publish("a/1", b"new", retain=True)
    writer.publish("a/2", b"gone", retain=True)
    writer.publish("a/2", b"", retain=True)
    reader.subscribe("a/#")
    assert events(reader) == [Up(64 * 1024), Message("a/1", b"new", retained=True)]


def test_unsubscribing_ends_it():
    hub = Hub()
    reader, writer = MemoryTransport(hub), MemoryTransport(hub)
    reader.subscribe("a")
    reader.unsubscribe("a")
    events(writer)
    assert isinstance(writer.publish("a", b"x"), int)
    assert isinstance(events(writer)[0], Unsent) and events(reader) == [Up(64 * 1024)]


@pytest.mark.parametrize("ending", ["drop", "close", "farewell"])
def test_the_will_is_sent_only_when_the_link_breaks(ending):
    hub = Hub()
    watcher = MemoryTransport(hub)
    watcher.subscribe("d/+")
    leaver = MemoryTransport(hub, will=Will("d/x", b"lost"))
    events(watcher)
    if ending == "drop":
        leaver.drop()
    else:
        leaver.close(Message("d/x", b"bye") if ending == "farewell" else None)
    leaver.drop()  # a second end says nothing
    said = {"drop": [b"lost"], "close": [], "farewell": [b"bye"]}[ending]
    assert [message.payload for message in events(watcher)] == said
    assert list(hub.retained.values()) == said
