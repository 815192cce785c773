"""The loop of one run: waits for one event, lets the desk read it, and lets the conductor do what is due.

Everything that must survive is in the database, the journal or a checkpoint before anybody is told of it; a new
Federation over the same folder goes on where the old one ended.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from coordinator.desk import Desk
from coordinator.learning.evaluator import Evaluator
from coordinator.rounds.conductor import Conductor
from coordinator.run_state import RunState
from wire.errors import StateError, TransportError
from wire.events import log_event
from wire.messages.reports import DeviceState, encode_state
from wire.transport import Down, Event, Message, Sent, Unsent, Up

__all__ = ["Federation"]

_LONGEST_WAIT_S = 5.0
_PIECES_IN_FLIGHT = 16


@dataclass
class Federation:
    """One run, going on step by step."""

    state: RunState
    evaluator: Evaluator
    desk: Desk = field(init=False)
    conductor: Conductor = field(init=False)
    flying: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        state = self.state
        self.desk = Desk(state)
        self.conductor = Conductor(state, self.evaluator, state.clock())
        state.library.put(state.planner.spec_digest, state.planner.spec_bytes)

    @property
    def over(self) -> bool:
        """Tells whether the run has ended."""
        return self.state.over

    def step(self, longest_s: float = _LONGEST_WAIT_S) -> bool:
        """Waits for an event at most until something is due, and acts; tells whether there was an event."""
        try:
            return self._step(longest_s)
        except (OSError, sqlite3.Error) as exc:
            remedy = "see that the disk has room and may be written; `bitfleet resume` then goes on where it was"
            raise StateError(f"the run's files cannot be used: {exc}", remedy=remedy) from exc

    def _step(self, longest_s: float) -> bool:
        event = self.state.transport.receive(min(longest_s, self._due_s()), self.evaluator.wake)
        before = self.state.number, self.over
        if event is not None:
            self._handle(event)
        self._send_pieces(self.state.clock())
        self.conductor.proceed(self.state.clock())
        if (self.state.number, self.over) != before:
            self.desk.tidy()
        return event is not None

    def _handle(self, event: Event) -> None:
        if isinstance(event, Message):
            self.desk.read(event)
        elif isinstance(event, Up):
            self._greet(event)
        elif isinstance(event, Down):
            self.state.link_lost()
            self.flying.clear()
            log_event("link-down", reason=event.reason)
        elif isinstance(event, Sent):
            self.flying.discard(event.token)
        elif isinstance(event, Unsent):
            self._unsent(event)

    def _unsent(self, event: Unsent) -> None:
        """What is not taken is asked for again; without its topics the coordinator would wait for ever."""
        if not event.token:
            message = f"the broker refuses the subscription to {event.topic}: {event.reason}"
            raise TransportError(message, remedy="look at the user name and at the broker's ACL")
        self.flying.discard(event.token)
        log_event("unsent", topic=event.topic, code=event.code, reason=event.reason)

    def _greet(self, event: Up) -> None:
        """A new link: everything retained is published again."""
        state = self.state
        state.online, state.library.payload_bytes = True, event.payload_bytes
        state.transport.subscribe(*(state.topics.device("+", leaf) for leaf in ("state", "info", "up", "ask")))
        ready = encode_state(DeviceState("ready", state.planner.session))
        state.transport.publish(state.topics.coordinator, ready, retain=True)
        state.invite()
        state.withdraw()
        log_event("link-up", payload_bytes=event.payload_bytes)

    def _send_pieces(self, now_s: float) -> None:
        state = self.state
        state.library.gather(now_s)
        while state.online and len(self.flying) < _PIECES_IN_FLIGHT:
            piece = state.library.next_piece()
            if piece is None:
                return
            topic = state.topics.blob(piece.digest)
            for device in piece.askers:
                state.accounts.sent(device, topic, len(piece.payload))
            self.flying.add(state.transport.publish(topic, piece.payload))

    def _due_s(self) -> float:
        now_s, library = self.state.clock(), self.state.library
        if library.due and self.state.online and len(self.flying) < _PIECES_IN_FLIGHT:
            return 0.0
        waits = (_LONGEST_WAIT_S, library.due_s(now_s), self.conductor.due_s(now_s))
        return max(0.0, min(wait for wait in waits if wait is not None))
