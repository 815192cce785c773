"""Keeps one run going over a real broker until it is done, and the roll-outs of its fleet beside it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from coordinator.federation import Federation
from coordinator.front.report import write_report
from coordinator.home import Home, open_home
from coordinator.host import Host
from coordinator.learning.epsilon import epsilon
from coordinator.learning.evaluator import ChildEvaluator
from coordinator.recipe import Recipe
from wire.errors import BitfleetError
from wire.events import log_event
from wire.links.link import Link
from wire.links.mqtt import MqttTransport
from wire.messages.reports import DeviceState, encode_state
from wire.topics import Topics
from wire.transport import Message, Will

__all__ = ["Serving", "farewell", "open_transport", "serve"]

_SETTLE_S = 1.0
_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Serving:
    """Where a coordinator lives and how it reaches its devices; `broker` is the address as it was given."""

    home: Path
    fleet: str
    link: Link
    keepalive_s: int = 30
    broker: str = ""


def serve(
    serving: Serving,
    recipe: Recipe | None,
    run: str = "",
    watch: Callable[[Federation], None] | None = None,
    *,
    reopen: bool = False,
) -> str:
    """Opens a new run of `recipe`, named `run` if that is given, or goes on with `run`; returns its name at its end.

    With `reopen` it goes on with a run that was stopped, too.
    """
    with open_home(serving.home, fleet=serving.fleet) as home:
        if recipe:
            name = home.new_run(recipe, name=run, fleet=serving.fleet, broker=serving.broker)
        else:
            name = run
            home.recipe(name)  # refused before anything is changed
            home.move(name, serving.fleet, serving.broker)
        if reopen:
            home.reopen(name)
        transport = open_transport(serving, home)
        evaluator = ChildEvaluator()
        federation = home.federation(name, serving.fleet, transport, evaluator, time.monotonic)
        host = Host(home, federation.state.post, federation.state.registry, time.monotonic, federation)
        _warn_of_privacy(federation.state.planner.recipe)
        goal = federation.state.planner.recipe.devices.goal
        log_event("serving", run=name, home=serving.home, key=home.public_key, devices_a_round=goal)
        try:
            while not federation.over:
                host.step()
                if watch:
                    watch(federation)
            _settle(host)
            write_report(home.database, name, home.run_folder(name), federation.state.planner)
        finally:
            evaluator.stop()
            transport.close(farewell(serving, home))
    return name


def _warn_of_privacy(recipe: Recipe) -> None:
    """Says before a private run what it will have spent at its end, and in plain words where that means little."""
    if not recipe.privacy.clip:
        return
    try:
        spent = epsilon(recipe.privacy, recipe.rounds, recipe.devices.invited)
    except BitfleetError as exc:
        log_event("privacy", epsilon="unknown", reason=str(exc))
        return
    log_event("privacy", epsilon=f"{spent.epsilon:.3g}", delta=spent.delta, warning=spent.warning or "none")


def open_transport(serving: Serving, home: Home) -> MqttTransport:
    """Returns the coordinator's link to its broker, with its will."""
    lost = encode_state(DeviceState("lost", home.session))
    return MqttTransport(
        serving.link,
        client_id=f"coordinator.{serving.fleet}",  # no device has a dot in its id, and no other fleet this name
        will=Will(Topics(serving.fleet).coordinator, lost),
        keepalive_s=serving.keepalive_s,
        chunk_bytes=_PIECE_BYTES,
    )


def farewell(serving: Serving, home: Home) -> Message:
    """Returns what a coordinator leaves behind when it goes."""
    return Message(Topics(serving.fleet).coordinator, encode_state(DeviceState("disconnected", home.session)))


def _settle(host: Host) -> None:
    """Stays a moment, so that the last receipts reach their devices, and keeps what these said last."""
    ends_s = time.monotonic() + _SETTLE_S
    while time.monotonic() < ends_s:
        host.step(0.1)
    with host.home.database.change():
        host.registry.save()
