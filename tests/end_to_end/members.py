"""A device of a real federation whose agent runs in the test's own process, over a real link, as it is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator.broker import start_broker
from edge_agent.agent import Agent
from edge_agent.config import load_config
from edge_agent.worker import Result
from tests.conftest import FAST, started
from tests.end_to_end.fleet import Fleet
from tests.inline_worker import InlineWorker
from wire.links.link import parse_link
from wire.links.mqtt import MqttTransport
from wire.messages.reports import DeviceState, encode_state
from wire.topics import Topics
from wire.transport import Will

__all__ = ["HeldWorker", "drive", "member", "members", "set_link"]


@dataclass
class HeldWorker:
    """A worker that keeps its result back while `held`."""

    held: bool = False
    inner: InlineWorker = field(default_factory=InlineWorker)
    wake: tuple[int, ...] = ()

    def start(self, header: dict[str, Any], plan: bytes) -> None:
        self.inner.start(header, plan)

    def poll(self, now_s: float) -> Result | None:
        return None if self.held else self.inner.poll(now_s)

    def stop(self) -> None:
        self.inner.stop()


@contextmanager
def members(kind: str, folder: Path, recipe: Any) -> Iterator[Fleet]:
    """Starts a broker and makes a fleet of which nothing runs yet; ends whatever was started."""
    started(kind, folder / "probe").stop()
    with start_broker(kind, folder / "broker") as broker:
        made = Fleet(folder / "fleet", recipe, broker)
        try:
            yield made
        finally:
            made.stop()


def set_link(fleet: Fleet, device: str, url: str = "", **link: int) -> None:
    """Changes a device's configuration: another way to the broker, or other settings of [link]."""
    path = fleet.folder / f"{device}.toml"
    text = path.read_text().replace(fleet.broker.url, url or fleet.broker.url)
    path.write_text(text + "[link]\n" + "".join(f"{name} = {value}\n" for name, value in link.items()))


@contextmanager
def member(fleet: Fleet, device: str, worker: Any = None, **options: Any) -> Iterator[Agent]:
    """Makes the agent of a device here; the caller lets it step."""
    config = load_config(fleet.folder / f"{device}.toml")
    lost = encode_state(DeviceState("lost", 1))
    will = Will(Topics(config.fleet).device(device, "state"), lost)
    settings = {"keepalive_s": config.link.keepalive_s, "backoff": FAST, **options}
    transport = MqttTransport(parse_link(config.broker), device, will, **settings)
    agent = Agent(config, transport, worker or InlineWorker(), time.monotonic, lambda: 0.5)
    try:
        yield agent
    finally:
        agent.stop()


def drive(until: Callable[[], object], *steps: Callable[[], object], longest_s: float = 60.0, why: Any = "") -> None:
    """Calls the steps in turn until something is so."""
    ends_s = time.monotonic() + longest_s
    while not until():
        for step in steps:
            step()
        if not steps:
            time.sleep(0.02)
        assert time.monotonic() < ends_s, why() if callable(why) else why
