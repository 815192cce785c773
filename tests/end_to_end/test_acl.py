"""What the broker delivers with the ACL file made of the table of topics: every role, every topic, both ways."""

from __future__ import annotations

import pytest

from tests.waiting import wait_for
from tests.wire.test_mqtt_trust import password_line
from wire.links.link import parse_link
from wire.topics import TABLE, Topics, acl_file
from wire.transport import Down, Message, Sent, Unsent, Up

TOPICS = Topics("farm")
DEVICES = ("pi-1", "pi-2")
NAMES = ("coordinator", "dashboard", *DEVICES)
BLOB = "ab" * 32


def role(name):
    return "device" if name in DEVICES else name


def concrete():
    """Returns every topic of the table for every name, as (row, name it belongs to or nothing, topic)."""
    found = []
    for row in TABLE:
        for owner in NAMES if "{device}" in row.path else ("",):
            path = row.path.replace("{device}", owner).replace("+", BLOB)
            found.append((row, owner, f"{TOPICS.root}/{path}"))
    return found


def may(name, row, owner, roles):
    """Tells what the table says; coordinator and dashboard are no devices: nobody reads or writes topics of theirs."""
    if owner and owner not in DEVICES:
        return False
    return role(name) in roles and (role(name) != "device" or owner in ("", name))


def may_read(name, row, owner):
    """Tells who gets a topic: the readers of the table, and of a topic for all devices also who writes it."""
    return may(name, row, owner, row.readers if owner else (*row.readers, row.writer))


@pytest.fixture
def guarded(mosquitto, tmp_path):
    """Returns a function that starts a broker with the ACL, and gives the link of a name."""

    def start(**settings):
        (tmp_path / "acl").write_text(acl_file("farm"))
        (tmp_path / "passwords").write_text("".join(password_line(name, f"word of {name}") for name in NAMES))
        for name in NAMES:
            (tmp_path / name).write_text(f"word of {name}\n")
        files = {"acl_file": str(tmp_path / "acl"), "password_file": str(tmp_path / "passwords")}
        url = mosquitto(allow_anonymous="false", **files, **settings).url
        return lambda name: parse_link(url, username=name, password_file=tmp_path / name)

    return start


def publish_everywhere(name, transport):
    """Publishes to every topic there is, and returns the events that came by until the broker had answered."""
    tokens, seen = set(), []
    for row, _, topic in concrete():
        tokens.add(transport.publish(topic, f"{name} to {topic}".encode(), retain=row.retained))
    while tokens:
        event = wait_for(transport, (Sent, Unsent, Message))
        seen.append(event)
        tokens.discard(getattr(event, "token", 0))
    return seen


def heard(transport, seen):
    """Returns what was delivered to a client, and before "the end", as (topic, payload)."""
    seen = [*seen, wait_for(transport, Message, seen)]
    while seen[-1].payload != b"the end":
        seen.append(wait_for(transport, Message, seen))
    return {(event.topic, event.payload) for event in seen[:-1] if isinstance(event, Message)}


def test_every_role_reads_and_writes_what_the_table_says_and_nothing_else(guarded, client):
    link = guarded()
    clients = {name: client(link(name), name) for name in NAMES}
    for transport in clients.values():
        transport.subscribe("#", f"{TOPICS.root}/#", *(topic for _, _, topic in concrete()))
    seen = {name: publish_everywhere(name, transport) for name, transport in clients.items()}
    clients["coordinator"].publish(TOPICS.coordinator, b"the end")
    clients["pi-1"].publish(TOPICS.device("pi-1", "state"), b"the end")
    for name, transport in clients.items():
        wanted = {
            (topic, f"{writer} to {topic}".encode())
            for row, owner, topic in concrete()
            for writer in NAMES
            if may(writer, row, owner, (row.writer,)) and may_read(name, row, owner)
        }
        assert heard(transport, seen[name]) == wanted, name


def test_what_is_retained_is_kept_from_those_who_may_not_read_it(guarded, client):
    link = guarded()
    writers = {name: client(link(name), name) for name in NAMES}
    for name, transport in writers.items():
        publish_everywhere(name, transport)
    late = client(link("pi-2"), "late")
    late.subscribe(f"{TOPICS.root}/#")
    writers["coordinator"].publish(TOPICS.coordinator, b"the end")
    got = {topic for topic, _ in heard(late, [])}
    assert got == {topic for row, owner, topic in concrete() if row.retained and may_read("pi-2", row, owner)}


def test_nobody_enters_without_a_password(guarded, client):
    link = guarded()("pi-1")
    nameless = client(parse_link(f"mqtt://{link.host}:{link.port}"), "pi-1", up=False)
    assert "Not authorized" in wait_for(nameless, Down).reason


@pytest.mark.parametrize("tied", [True, False])
def test_a_client_id_is_stolen_only_where_it_is_not_tied_to_the_name(guarded, client, tied):
    link = guarded(**({"use_username_as_clientid": "true"} if tied else {}))
    owner = client(link("pi-1"), "pi-1")
    thief = client(link("pi-2"), "pi-1")
    thief.publish(TOPICS.device("pi-2", "state"), b"here")
    wait_for(thief, (Sent, Unsent))
    if tied:
        watcher = client(link("coordinator"), "coordinator")
        owner.subscribe(TOPICS.coordinator)
        watcher.publish(TOPICS.coordinator, b"still there?", retain=True)
        seen = []
        assert wait_for(owner, Message, seen).payload == b"still there?"
        assert not [event for event in seen if isinstance(event, Down | Up)]
    else:
        wait_for(owner, Down)
