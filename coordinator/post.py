"""The coordinator's post over one link: what it says to devices, pieces of blobs on their way, bytes counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from coordinator.accounts import Accounts
from coordinator.library import Library
from wire.errors import TransportError
from wire.events import log_event
from wire.messages.reports import DeviceState, encode_state
from wire.topics import Topics
from wire.transport import Down, Event, Sent, Transport, Unsent, Up

__all__ = ["LONGEST_WAIT_S", "Post"]

LONGEST_WAIT_S = 5.0
_PIECES_IN_FLIGHT = 16


@dataclass
class Post:
    """Publishes for a run or a roll-out. `flying` are the pieces that the broker has not taken yet."""

    transport: Transport
    topics: Topics
    library: Library
    accounts: Accounts = field(default_factory=Accounts)
    online: bool = False
    flying: set[int] = field(default_factory=set)

    def greet(self, event: Up, session: int, leaves: Sequence[str]) -> None:
        """Begins a new link: subscribes to these topics of all devices, and says that the coordinator is there."""
        self.online, self.library.payload_bytes = True, event.payload_bytes
        self.transport.subscribe(*(self.topics.device("+", leaf) for leaf in leaves))
        ready = encode_state(DeviceState("ready", session))
        self.transport.publish(self.topics.coordinator, ready, retain=True)

    def say(self, device: str, leaf: str, payload: bytes, retain: bool = False) -> int | None:
        """Publishes to a device, counts it and returns its token; while the link is down nothing is said."""
        if not self.online:
            return None
        topic = self.topics.device(device, leaf)
        self.accounts.sent(device, topic, len(payload))
        return self.transport.publish(topic, payload, retain=retain)

    def note(self, event: Event) -> None:
        """Notes what became of the link and of what was published."""
        if isinstance(event, Down):
            self.online = False
            self.flying.clear()
            log_event("link-down", reason=event.reason)
        elif isinstance(event, Sent):
            self.flying.discard(event.token)
        elif isinstance(event, Unsent):
            self._unsent(event)

    def send_pieces(self, now_s: float) -> None:
        """Publishes pieces that were asked for, so many as may be on their way at once."""
        self.library.gather(now_s)
        while self.online and len(self.flying) < _PIECES_IN_FLIGHT:
            piece = self.library.next_piece()
            if piece is None:
                return
            topic = self.topics.blob(piece.digest)
            for device in piece.askers:
                self.accounts.sent(device, topic, len(piece.payload))
            self.flying.add(self.transport.publish(topic, piece.payload))

    def due_s(self, now_s: float) -> float:
        """Returns in how many seconds `send_pieces` has something to do, and no more than the longest wait."""
        if self.library.due and self.online and len(self.flying) < _PIECES_IN_FLIGHT:
            return 0.0
        wait_s = self.library.due_s(now_s)
        return LONGEST_WAIT_S if wait_s is None else min(LONGEST_WAIT_S, wait_s)

    def _unsent(self, event: Unsent) -> None:
        """What is not taken is asked for again; without its topics the coordinator would wait for ever."""
        if not event.token:
            message = f"the broker refuses the subscription to {event.topic}: {event.reason}"
            raise TransportError(message, remedy="look at the user name and at the broker's ACL")
        self.flying.discard(event.token)
        log_event("unsent", topic=event.topic, code=event.code, reason=event.reason)
