"""The seam between the code and the broker: publish, subscribe, receive, close; and a broker in memory behind it.

A transport is lossy on purpose: it reports what the broker took (`Sent`) and what it did not (`Unsent`), and never
sends anything again by itself. Whoever owns a message repeats it, after `Up` or after its own time-out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Down", "Event", "Hub", "MemoryTransport", "Message", "Sent", "Transport", "Unsent", "Up", "Will", "matches"]


@dataclass(frozen=True, slots=True)
class Message:
    """A message arrived. `retained` says that it was kept by the broker from before the subscription."""

    topic: str
    payload: bytes
    retained: bool = False


@dataclass(frozen=True, slots=True)
class Up:
    """The link is there, with nothing subscribed: subscribe, and publish again what should be retained.

    `payload_bytes` is the largest payload that this broker's announced packet limit leaves room for.
    """

    payload_bytes: int


@dataclass(frozen=True, slots=True)
class Down:
    """The link is gone. Everything published and not yet reported `Sent` must be taken as lost."""

    reason: str


@dataclass(frozen=True, slots=True)
class Sent:
    """The broker took the message that `publish` gave this token for."""

    token: int


@dataclass(frozen=True, slots=True)
class Unsent:
    """The broker did not take it: a reason code of 0x80 or more, or 0x10 (nobody listens) if it was not retained."""

    token: int
    topic: str
    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes, retained, when the link breaks without a goodbye."""

    topic: str
    payload: bytes


Event = Message | Up | Down | Sent | Unsent


class Transport(Protocol):
    """One client of one broker."""

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Hands a message over and returns its token; an empty retained payload clears the topic."""

    def subscribe(self, *filters: str) -> None:
        """Asks for the topics that match, until the link breaks."""

    def unsubscribe(self, *filters: str) -> None:
        """Ends `subscribe`."""

    def receive(self, timeout_s: float, wake: Sequence[int] = ()) -> Event | None:
        """Returns the next event; None after `timeout_s`, or at once when a file descriptor in `wake` is readable."""

    def close(self, farewell: Message | None = None) -> None:
        """Publishes `farewell` (retained), says goodbye so that the will is not sent, and frees the socket."""


def matches(pattern: str, topic: str) -> bool:
    """Tells whether an MQTT filter covers a topic."""
    wanted, parts = pattern.split("/"), topic.split("/")
    for at, want in enumerate(wanted):
        if want == "#":
            return True
        if at >= len(parts) or want not in ("+", parts[at]):
            return False
    return len(wanted) == len(parts)


@dataclass(eq=False)
class Hub:
    """A broker in memory: retained messages, wills, QoS 1 answers. Filters without wildcards are found by one look."""

    retained: dict[str, bytes] = field(default_factory=dict)
    members: dict[MemoryTransport, None] = field(default_factory=dict)
    exact: dict[str, dict[MemoryTransport, None]] = field(default_factory=dict)
    wild: dict[str, dict[MemoryTransport, None]] = field(default_factory=dict)

    def route(self, topic: str, payload: bytes, retain: bool) -> int:
        """Delivers to every subscriber and returns how many there were."""
        if retain and payload:
            self.retained[topic] = payload
        elif retain:
            self.retained.pop(topic, None)
        takers = dict(self.exact.get(topic, ()))
        for pattern, members in self.wild.items():
            if matches(pattern, topic):
                takers |= members
        for taker in takers:
            taker.inbox.append(Message(topic, payload))
        return len(takers)

    def join(self, member: MemoryTransport, pattern: str) -> None:
        """Adds a member to the takers of a filter."""
        self._table(pattern).setdefault(pattern, {})[member] = None

    def part(self, member: MemoryTransport, pattern: str) -> None:
        """Ends `join`."""
        table = self._table(pattern)
        takers = table.get(pattern, {})
        takers.pop(member, None)
        if not takers:
            table.pop(pattern, None)

    def leave(self, member: MemoryTransport) -> None:
        """Delivers nothing more to a member."""
        self.members.pop(member, None)
        for pattern in member.filters:
            self.part(member, pattern)

    def kept(self, filters: Sequence[str]) -> list[tuple[str, bytes]]:
        """Returns the retained messages that any of the filters covers, in order of topic."""
        topics = {pattern for pattern in filters if pattern in self.retained}
        wild = [pattern for pattern in filters if _is_wild(pattern)]
        if wild:
            topics |= {topic for topic in self.retained if any(matches(pattern, topic) for pattern in wild)}
        return [(topic, self.retained[topic]) for topic in sorted(topics)]

    def _table(self, pattern: str) -> dict[str, dict[MemoryTransport, None]]:
        return self.wild if _is_wild(pattern) else self.exact


def _is_wild(pattern: str) -> bool:
    return "+" in pattern or "#" in pattern


@dataclass(eq=False)
class MemoryTransport:
    """A transport onto a `Hub`: for simulation and tests. `receive` never waits."""

    hub: Hub
    payload_bytes: int = 64 * 1024
    will: Will | None = None
    inbox: deque[Event] = field(default_factory=deque)
    filters: set[str] = field(default_factory=set)
    _tokens: int = 0

    def __post_init__(self) -> None:
        self.hub.members[self] = None
        self.inbox.append(Up(self.payload_bytes))

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """See Transport."""
        self._tokens += 1
        if self not in self.hub.members:
            return self._tokens
        if len(payload) > self.payload_bytes:
            self.inbox.append(Unsent(self._tokens, topic, 0x95, "packet too large"))
            return self._tokens
        heard = self.hub.route(topic, payload, retain)
        taken = heard or retain
        self.inbox.append(Sent(self._tokens) if taken else Unsent(self._tokens, topic, 0x10, "no matching subscribers"))
        return self._tokens

    def subscribe(self, *filters: str) -> None:
        """See Transport; what is retained and matches arrives at once."""
        self.filters.update(filters)
        for pattern in filters if self in self.hub.members else ():
            self.hub.join(self, pattern)
        self.inbox.extend(Message(topic, payload, retained=True) for topic, payload in self.hub.kept(filters))

    def unsubscribe(self, *filters: str) -> None:
        """See Transport."""
        self.filters.difference_update(filters)
        for pattern in filters:
            self.hub.part(self, pattern)

    def receive(self, timeout_s: float, wake: Sequence[int] = ()) -> Event | None:
        """Returns the next event, or None at once."""
        return self.inbox.popleft() if self.inbox else None

    def drop(self) -> None:
        """Breaks the link as a crash would: the will is published."""
        self._leave(Message(self.will.topic, self.will.payload) if self.will else None)

    def close(self, farewell: Message | None = None) -> None:
        """See Transport."""
        self._leave(farewell)

    def _leave(self, last: Message | None) -> None:
        if self in self.hub.members:
            self.hub.leave(self)
            if last:
                self.hub.route(last.topic, last.payload, retain=True)
