"""Keeps a roll-out going over a broker until it is over, or until only a person can decide what comes next."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from coordinator.home import Home, open_home
from coordinator.library import Library
from coordinator.post import Post
from coordinator.rollout.book import Published, RolloutBook
from coordinator.rollout.loop import RolloutLoop
from coordinator.rollout.publish import blobs_of, load_manifest
from coordinator.rollout.stages import Rollout
from coordinator.service import Serving, farewell, open_transport
from coordinator.state.registry import Registry
from wire.errors import StateError
from wire.events import log_event
from wire.messages.rollout import Offer
from wire.topics import Topics
from wire.transport import Transport

__all__ = ["open_loop", "run_rollout"]


def open_loop(home: Home, name: str, transport: Transport, clock: Callable[[], float]) -> RolloutLoop:
    """Returns the loop of a roll-out, ready to go on from wherever it stands."""
    book = RolloutBook(home.database)
    rollout = book.load(name)
    at = book.published(rollout.version)
    registry = Registry(home.database)
    registry.recall()
    return RolloutLoop(
        rollout=replace(rollout, since_s=clock()),
        book=book,
        post=Post(transport, Topics(book.fleet(name)), Library(home.shelf, durable=home.durable)),
        registry=registry,
        clock=clock,
        sign=home.sign,
        session=home.session,
        offer=Offer(name, at.digest, at.size, rollout.version),
        blobs=_blobs(home, book, rollout, at),
    )


def _blobs(home: Home, book: RolloutBook, rollout: Rollout, at: Published) -> frozenset[str]:
    """Returns what devices may ask for; a damaged shelf must not keep a person from ending a roll-out."""
    try:
        return frozenset({at.digest, *blobs_of(load_manifest(home.shelf, at))})
    except StateError:
        if rollout.over or book.pending_wish(rollout.name) == "abort":
            return frozenset()
        raise


def run_rollout(serving: Serving, begin: Callable[[Home], str]) -> Rollout:
    """Runs the roll-out that `begin` names; returns how it stands when there is nothing more to do."""
    with open_home(serving.home) as home:
        name = begin(home)
        serving = replace(serving, fleet=RolloutBook(home.database).fleet(name))
        transport = open_transport(serving, home)
        try:
            loop = open_loop(home, name, transport, time.monotonic)
            log_event("rolling-out", rollout=name, version=loop.rollout.version, home=serving.home)
            while True:
                loop.step()
                if loop.ended:
                    return loop.rollout
        finally:
            transport.close(farewell(serving, home))
