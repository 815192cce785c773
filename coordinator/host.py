"""The loop of a coordinator's process: waits for one event over the one link, and passes it to whom it concerns.

A host has a run, the newest roll-out of its fleet, or both. The run comes first, and no fault of a roll-out ends it:
such a roll-out is left alone until a person wishes something of it, and `rollout status` says why.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from coordinator.federation import Federation
from coordinator.home import Home
from coordinator.post import LONGEST_WAIT_S, PIECES_BESIDE, Post
from coordinator.rollout.book import RolloutBook
from coordinator.rollout.desk import RolloutDesk, open_desk
from coordinator.state.registry import Registry
from wire.errors import BitfleetError, StateError, TransportError, WireError
from wire.events import log_event
from wire.topics import Topics
from wire.transport import Event, Message, Transport, Unsent

__all__ = ["Host", "host_alone"]

_LOOK_S = 1.0


@dataclass
class Host:
    """One process at work in a home. `desk` is where the newest roll-out is conducted.

    `alone` names the roll-out that is left alone, `left` is where it was: no question for its blobs is a fault.
    """

    home: Home
    post: Post
    registry: Registry
    clock: Callable[[], float]
    run: Federation | None = None
    desk: RolloutDesk | None = None
    alone: str = ""
    left: RolloutDesk | None = None
    looked_s: float = float("-inf")

    @property
    def book(self) -> RolloutBook:
        """Returns the book of roll-outs."""
        return RolloutBook(self.home.database)

    def step(self, longest_s: float = LONGEST_WAIT_S) -> bool:
        """Waits for an event at most until something is due, and acts; tells whether there was an event."""
        wake = self.run.evaluator.wake if self.run else ()
        event = self.post.transport.receive(min(longest_s, self._due_s()), wake)
        if event is not None:
            self._handle(event)
        if self.run:
            self.run.act()
        self._look()
        if self.desk:
            self._fenced(self.desk.act)
        return event is not None

    def through_with(self, name: str) -> bool:
        """Tells whether nothing is to be done for a roll-out until a person decides; StateError if it is left alone."""
        if self.alone == name:
            raise StateError(f"roll-out {name!r} cannot go on: {self.book.fault(name)}")
        return self.desk is not None and (self.desk.rollout.name != name or self.book.rests(self.desk.rollout))

    def _due_s(self) -> float:
        now_s = self.clock()
        due_s = self.run.due_s() if self.run else self.post.due_s(now_s)
        return max(0.0, min(due_s, self.looked_s + _LOOK_S - now_s))

    def _handle(self, event: Event) -> None:
        try:
            self.post.note(event)
        except TransportError as exc:
            if not (self.run and isinstance(event, Unsent) and event.topic == self.post.topics.device("+", "model")):
                raise
            self._leave_alone(exc)  # a broker with an ACL of before: the run needs no such topic
        if isinstance(event, Message):
            self._pass_on(event)
            return
        if self.run:
            self.run.handle(event)
        if self.desk:
            self._fenced(self.desk.handle, event)

    def _pass_on(self, message: Message) -> None:
        """Has a message read by one of the two: bytes and refusals count where it belongs."""
        if self.desk and (self.run is None or self.desk.answers(message)):
            self._fenced(self.desk.handle, message)
        elif self.run:
            if not (self.left and self.left.answers(message)):
                self.run.handle(message)
        else:
            with suppress(WireError):  # who is here is worth knowing before there is a roll-out, too
                self.registry.hear(*(self.post.topics.split(message.topic) or ("", "")), message.payload)

    def _look(self) -> None:
        """Takes up once a second what is the newest roll-out of the fleet, and saves devices that are new here."""
        now_s = self.clock()
        if now_s - self.looked_s < _LOOK_S:
            return
        self.looked_s = now_s
        if self.registry.fresh:
            with self.home.database.change():
                self.registry.save()
        name = self.book.newest_of(self.post.topics.fleet)
        held = self.desk.rollout.name if self.desk else ""
        if name not in ("", held) and (name != self.alone or self.book.pending_wish(name)):
            self._fenced(self._take_up, name)

    def _take_up(self, name: str) -> None:
        self._drop()
        self.alone = name  # until it is here
        desk = open_desk(self.home, name, self.post, self.registry, self.clock)
        if self.run:
            desk.source.most = PIECES_BESIDE
        if self.book.fault(name):
            with self.home.database.change():
                self.book.set_fault(name, "")
        self.post.join(desk.source)
        self.post.listen("model")
        self.desk, self.left, self.alone = desk, None, ""
        log_event("rolling-out", rollout=name, version=desk.rollout.version, status=desk.rollout.status)

    def _fenced(self, do: Callable[..., None], *values: Any) -> None:
        try:
            do(*values)
        except Exception as exc:  # whatever is wrong with a roll-out, the run beside it goes on
            self._leave_alone(exc)

    def _leave_alone(self, exc: Exception) -> None:
        self.left = self.desk or self.left
        name = self.alone = self.desk.rollout.name if self.desk else self.alone
        self._drop()
        reason = str(exc) if isinstance(exc, BitfleetError) else f"E-INTERNAL: {exc!r}"
        log_event("rollout-left-alone", rollout=name, reason=reason)
        with suppress(StateError), self.home.database.change():  # a database that takes nothing ends the run by itself
            self.book.set_fault(name, reason)

    def _drop(self) -> None:
        if self.desk:
            self.post.sources.remove(self.desk.source)
        self.desk = None


def host_alone(home: Home, fleet: str, transport: Transport, clock: Callable[[], float]) -> Host:
    """Returns the host of a fleet's roll-outs, without a run."""
    registry = Registry(home.database, fleet)
    registry.recall()
    post = Post(transport, Topics(fleet), home.session, ["state", "info", "ask"])
    return Host(home, post, registry, clock)
