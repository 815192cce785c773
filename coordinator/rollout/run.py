"""Carries a roll-out to its end: here, or in the process that is at work in the home, which this one then follows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from coordinator.home import Home, in_use, open_home, refuse_another_fleet, visit_home
from coordinator.host import Host, host_alone
from coordinator.rollout.book import RolloutBook
from coordinator.rollout.stages import Rollout
from coordinator.service import Serving, farewell, open_transport
from coordinator.state.database import open_database
from wire.errors import StateError
from wire.events import log_event

__all__ = ["run_rollout", "serve_rollouts"]

_GLANCE_S = 0.5
_GRACE_S = 10.0
"""A process that was killed has so long to come back before another takes its roll-out over."""


def run_rollout(serving: Serving, begin: Callable[[Home], str], look: str = "bitfleet rollout status") -> Rollout:
    """Runs or follows the roll-out that `begin` names; returns how it stands when there is nothing more to do.

    `look` is the command that shows it to who stops looking on.
    """
    refuse_another_fleet(serving.home, serving.fleet)
    with visit_home(serving.home) as home:
        name = begin(home)
    while True:
        rollout = _followed(serving, name, look) if in_use(serving.home) else _carried_out(serving, name)
        if rollout is not None:
            return rollout


def serve_rollouts(serving: Serving) -> None:
    """Stays for the newest roll-out of a fleet, over or not, until it is stopped."""
    with _host(serving) as host:
        while True:
            host.step()


def _carried_out(serving: Serving, name: str) -> Rollout | None:
    """Returns how a roll-out stands once this process is through with it; None if another one has the home by then."""
    try:
        with _host(serving) as host:
            while not host.through_with(name):
                host.step()
            return host.book.load(name)
    except StateError:
        if in_use(serving.home):
            return None
        raise


def _followed(serving: Serving, name: str, look: str) -> Rollout | None:
    """Returns how a roll-out stands once the process at work is through with it; None if that one has ended before."""
    log_event("following", rollout=name, home=serving.home)
    seen_s = time.monotonic()
    with closing(open_database(serving.home / "fleet.sqlite", read_only=True)) as database, _going_on(look):
        book = RolloutBook(database)
        while book.pending_wish(name) or not book.rests(book.load(name)):
            if book.fault(name) and not book.pending_wish(name):
                raise StateError(f"roll-out {name!r} cannot go on: {book.fault(name)}")
            if in_use(serving.home):
                refuse_another_fleet(serving.home, serving.fleet)
                seen_s = time.monotonic()
            elif time.monotonic() - seen_s >= _GRACE_S:
                return None
            time.sleep(_GLANCE_S)
        return book.load(name)


@contextmanager
def _going_on(look: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        said = f"stopped looking on; the roll-out goes on, `{look}` shows it"
        raise KeyboardInterrupt(said) from None


@contextmanager
def _host(serving: Serving) -> Iterator[Host]:
    with open_home(serving.home, fleet=serving.fleet) as home:
        transport = open_transport(serving, home)
        try:
            yield host_alone(home, serving.fleet, transport, time.monotonic)
        finally:
            transport.close(farewell(serving, home))
