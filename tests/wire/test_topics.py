"""Topics: one tree a fleet; a device reaches its own topics and no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import ConfigError
from wire.topics import TABLE, Topics, acl_file
from wire.transport import matches

NAME = st.text("abc019-", min_size=1, max_size=32)
LEAVES = [row.path.split("/")[2] for row in TABLE if row.path.startswith("d/")]


@given(NAME, NAME, st.sampled_from(LEAVES))
def test_a_device_topic_is_split_again(fleet, device, leaf):
    topics = Topics(fleet)
    assert topics.split(topics.device(device, leaf)) == (device, leaf)
    assert topics.device(device, leaf) == f"fl/1/{fleet}/d/{device}/{leaf}"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "fl/1/home",
        "fl/1/home/c/state",
        "fl/1/home/d/pi",
        "fl/1/home/d/pi/up/x",
        "fl/1/other/d/pi/up",
        "fl/2/home/d/pi/up",
        "fl/1/home/d/PI/up",
        "fl/1/home/d//up",
        "x/fl/1/home/d/pi/up",
        "fl/1/home/d/+/up",
    ],
)
def test_other_topics_are_no_device_s(topic):
    assert Topics("home").split(topic) is None


@pytest.mark.parametrize("fleet", ["", "A", "a/b", "+", "#", "a" * 33, "ä", "a\n"])
def test_wrong_fleets(fleet):
    with pytest.raises(ConfigError):
        Topics(fleet)


@pytest.mark.parametrize(
    "user", ["", " ", "a b", "a\nuser b", "a\n", "a\t", "+", "#", "a/b", "x" * 65, "ä", "dashboard"]
)
def test_user_names_that_would_change_the_acl_file_are_refused(user):
    with pytest.raises(ConfigError, match="coordinator = "):
        acl_file("home", user)
    if user != "dashboard":
        with pytest.raises(ConfigError, match="dashboard = "):
            acl_file("home", dashboard=user)
    assert "user Gardener_1@home.example\n" in acl_file("home", "Gardener_1@home.example")


def rights(user: str) -> list[tuple[str, str]]:
    """Returns (access, filter) for a user, read as mosquitto reads the file."""
    found, current = [], ""
    for line in acl_file("home").splitlines():
        word, _, rest = line.partition(" ")
        if word == "user":
            current = rest
        elif word == "topic" and current == user:
            found.append(tuple(rest.split(" ", 1)))
        elif word == "pattern":
            access, topic = rest.split(" ", 1)
            found.append((access, topic.replace("%u", user)))
    return found


def allowed(user: str, access: str, topic: str) -> bool:
    """Tells what mosquitto does: the first line that covers the topic and grants the access, or denies all, decides."""
    covering = [right for right, pattern in rights(user) if matches(pattern, topic) and right in ("deny", access)]
    return covering[:1] == [access]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.path)
def test_the_acl_file_says_what_the_table_says(row):
    topic = f"fl/1/home/{row.path.replace('{device}', 'pi').replace('+', 'ab')}"
    for role, user in (("coordinator", "coordinator"), ("dashboard", "dashboard"), ("device", "pi")):
        assert allowed(user, "write", topic) == (row.writer == role)
        if role != row.writer:  # what one writes one may read
            assert allowed(user, "read", topic) == (role in row.readers)
    if "{device}" in row.path:
        assert not allowed("other", "write", topic) and not allowed("other", "read", topic)


@pytest.mark.parametrize("user", ["coordinator", "dashboard"])
def test_no_person_is_a_device(user):
    for row in TABLE:
        topic = f"fl/1/home/{row.path.replace('{device}', user)}"
        assert "{device}" not in row.path or not (allowed(user, "write", topic) or allowed(user, "read", topic))


def test_the_helpers_make_topics_of_the_table():
    topics = Topics("home")
    made = [topics.device("{device}", leaf) for leaf in LEAVES] + [topics.blob("+"), topics.coordinator]
    assert [topic.removeprefix(topics.root + "/") for topic in made] == [row.path for row in TABLE]
    assert {row.writer for row in TABLE} == {"device", "coordinator"}
