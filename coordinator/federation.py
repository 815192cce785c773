"""The loop of one run: waits for one event, lets the desk read it, and lets the conductor do what is due.

Everything that must survive is in the database, the journal or a checkpoint before anybody is told of it; a new
Federation over the same folder goes on where the old one ended.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from coordinator.desk import Desk
from coordinator.learning.evaluator import Evaluator
from coordinator.post import LONGEST_WAIT_S
from coordinator.rounds.conductor import Conductor
from coordinator.run_state import RunState
from wire.errors import StateError
from wire.events import log_event
from wire.transport import Down, Event, Message, Up

__all__ = ["Federation"]


@dataclass
class Federation:
    """One run, going on step by step."""

    state: RunState
    evaluator: Evaluator
    desk: Desk = field(init=False)
    conductor: Conductor = field(init=False)

    def __post_init__(self) -> None:
        state = self.state
        self.desk = Desk(state)
        self.conductor = Conductor(state, self.evaluator, state.clock())
        state.library.put(state.planner.spec_digest, state.planner.spec_bytes)

    @property
    def over(self) -> bool:
        """Tells whether the run has ended."""
        return self.state.over

    def step(self, longest_s: float = LONGEST_WAIT_S) -> bool:
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
        self.state.post.send_pieces(self.state.clock())
        self.conductor.proceed(self.state.clock())
        if (self.state.number, self.over) != before:
            self.desk.tidy()
        return event is not None

    def _handle(self, event: Event) -> None:
        if isinstance(event, Message):
            self.desk.read(event)
        elif isinstance(event, Up):
            self._greet(event)
        else:
            self.state.post.note(event)
            if isinstance(event, Down):
                self.state.link_lost()

    def _greet(self, event: Up) -> None:
        """A new link: everything retained is published again."""
        state = self.state
        state.post.greet(event, state.planner.session, ("state", "info", "up", "ask"))
        state.invite()
        state.withdraw()
        log_event("link-up", payload_bytes=event.payload_bytes)

    def _due_s(self) -> float:
        now_s = self.state.clock()
        wait_s = self.conductor.due_s(now_s)
        post_s = self.state.post.due_s(now_s)
        return post_s if wait_s is None else max(0.0, min(post_s, wait_s))
