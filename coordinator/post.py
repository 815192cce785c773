"""The coordinator's post over one link: what it says to devices, pieces of blobs on their way, bytes counted."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.accounts import Accounts
from coordinator.library import Library
from wire.errors import TransportError
from wire.events import log_event
from wire.messages.reports import DeviceState, encode_state
from wire.topics import Topics
from wire.transport import Down, Event, Sent, Transport, Unsent, Up

__all__ = ["LONGEST_WAIT_S", "PIECES_BESIDE", "Post", "Source"]

LONGEST_WAIT_S = 5.0
PIECES_BESIDE = 4
"""So many pieces of a roll-out may be on their way beside a run: no piece of a round waits behind more."""
_PIECES_IN_FLIGHT = 16


@dataclass(eq=False, slots=True)
class Source:
    """What one of those who share a link gives away, and its bytes.

    `flying` are its pieces that the broker has not taken yet, at most `most`: each source has its own window, so none
    starves beside another.
    """

    library: Library
    accounts: Accounts = field(default_factory=Accounts)
    most: int = _PIECES_IN_FLIGHT
    flying: set[int] = field(default_factory=set)


@dataclass
class Post:
    """The one link of a process. `leaves` are the topics of devices that are listened to, `sources` who shares it."""

    transport: Transport
    topics: Topics
    session: int
    leaves: list[str]
    sources: list[Source] = field(default_factory=list)
    online: bool = False
    payload_bytes: int = 64 * 1024

    def join(self, source: Source) -> None:
        """Adds a source to those who share the link."""
        source.library.payload_bytes = self.payload_bytes
        self.sources.append(source)

    def listen(self, leaf: str) -> None:
        """Listens to a topic of all devices too; if that was so before, what the broker keeps there comes again."""
        if leaf not in self.leaves:
            self.leaves.append(leaf)
        elif self.online:  # without this not every broker says again what it keeps
            self.transport.unsubscribe(self.topics.device("+", leaf))
        if self.online:
            self.transport.subscribe(self.topics.device("+", leaf))

    def say(self, source: Source, device: str, leaf: str, payload: bytes, retain: bool = False) -> int | None:
        """Publishes to a device, counts it and returns its token; while the link is down nothing is said."""
        if not self.online:
            return None
        topic = self.topics.device(device, leaf)
        source.accounts.sent(device, topic, len(payload))
        return self.transport.publish(topic, payload, retain=retain)

    def note(self, event: Event) -> None:
        """Notes what became of the link and of what was published, before anybody else does."""
        if isinstance(event, Up):
            self._greet(event)
        elif isinstance(event, Down):
            self.online = False
            for source in self.sources:
                source.flying.clear()
            log_event("link-down", reason=event.reason)
        elif isinstance(event, Sent | Unsent):
            for source in self.sources:
                source.flying.discard(event.token)
            if isinstance(event, Unsent):
                self._unsent(event)

    def send_pieces(self, source: Source, now_s: float) -> None:
        """Publishes a source's pieces that were asked for, so many as may be on their way at once."""
        source.library.gather(now_s)
        while self.online and len(source.flying) < source.most:
            piece = source.library.next_piece()
            if piece is None:
                return
            topic = self.topics.blob(piece.digest)
            for device in piece.askers:
                source.accounts.sent(device, topic, len(piece.payload))
            source.flying.add(self.transport.publish(topic, piece.payload))

    def due_s(self, now_s: float) -> float:
        """Returns in how many seconds `send_pieces` has something to do, and no more than the longest wait."""
        if self.online and any(one.library.due and len(one.flying) < one.most for one in self.sources):
            return 0.0
        waits = (source.library.due_s(now_s) for source in self.sources)
        return min((LONGEST_WAIT_S, *(wait_s for wait_s in waits if wait_s is not None)))

    def _greet(self, event: Up) -> None:
        """Begins a new link: subscribes, and says that the coordinator is there."""
        self.online, self.payload_bytes = True, event.payload_bytes
        for source in self.sources:
            source.library.payload_bytes = event.payload_bytes
        self.transport.subscribe(*(self.topics.device("+", leaf) for leaf in self.leaves))
        ready = encode_state(DeviceState("ready", self.session))
        self.transport.publish(self.topics.coordinator, ready, retain=True)
        log_event("link-up", payload_bytes=event.payload_bytes)

    def _unsent(self, event: Unsent) -> None:
        """What is not taken is asked for again; without its topics the coordinator would wait for ever."""
        if not event.token:
            message = f"the broker refuses the subscription to {event.topic}: {event.reason}"
            raise TransportError(message, remedy="look at the user name and at the broker's ACL")
        log_event("unsent", topic=event.topic, code=event.code, reason=event.reason)
