"""One run: the desk reads what comes, the conductor does what is due. `step` waits for one event and does both.

Everything that must survive is in the database, the journal or a checkpoint before anybody is told of it; a new
Federation over the same folder goes on where the old one ended.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from coordinator.desk import Desk
from coordinator.learning.evaluator import Evaluator
from coordinator.post import LONGEST_WAIT_S
from coordinator.rounds.conductor import Conductor
from coordinator.run_state import RunState
from wire.errors import StateError
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
        post = self.state.post
        event = post.transport.receive(min(longest_s, self.due_s()), self.evaluator.wake)
        if event is not None:
            post.note(event)
            self.handle(event)
        self.act()
        return event is not None

    def handle(self, event: Event) -> None:
        """Reads an event that the post has noted."""
        with _files():
            if isinstance(event, Message):
                self.desk.read(event)
            elif isinstance(event, Up):  # everything retained is published again
                self.state.invite()
                self.state.withdraw()
            elif isinstance(event, Down):
                self.state.link_lost()

    def act(self) -> None:
        """Does whatever is due, without waiting."""
        state = self.state
        with _files():
            state.post.send_pieces(state.source, state.clock())
            before = state.number, self.over
            self.conductor.proceed(state.clock())
            if (state.number, self.over) != before:
                self.desk.tidy()

    def due_s(self) -> float:
        """Returns in how many seconds `act` has something to do, and no more than the longest wait."""
        now_s = self.state.clock()
        wait_s = self.conductor.due_s(now_s)
        post_s = self.state.post.due_s(now_s)
        return post_s if wait_s is None else max(0.0, min(post_s, wait_s))


@contextmanager
def _files() -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as exc:
        remedy = "see that the disk has room and may be written; `bitfleet resume` then goes on where it was"
        raise StateError(f"the run's files cannot be used: {exc}", remedy=remedy) from exc
