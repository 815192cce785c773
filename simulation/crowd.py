"""Virtual devices. One that is not invited is a name and a folder; the real agent is made when a plan for it arrives.

The agent works until it has neither a job nor an update left, and is let go. Its device never left the hub, so what the
fleet knows of it already (its description, that it is ready) is neither said again nor counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from coordinator.recipe import Recipe
from coordinator.recipes.personal import own_personal
from coordinator.state.registry import Registry
from edge_agent.agent import Agent
from edge_agent.config import AgentConfig, DataConfig
from edge_agent.gate import Readings
from edge_agent.info import device_info
from models.tasks import dataset_of
from simulation.jobs import Jobs, JobWorker
from simulation.pool import Pool
from wire.frame import Kind, decode_frame
from wire.messages.reports import DeviceState, decode_state
from wire.topics import Topics
from wire.transport import Event, Hub, MemoryTransport, Message

__all__ = ["FLEET", "Crowd", "Seat", "device_name"]

FLEET = "sim"
_READY = DeviceState("ready", 1)
_UNKNOWN = Readings(None, None, None, None, None)  # a virtual device has no board of its own to look at


def device_name(at: int) -> str:
    """Returns the name of the device number `at`, the same as in the demo."""
    return f"device-{at:02d}"


@dataclass(eq=False)
class Seat:
    """A place at the hub that notes, in virtual time, until when its owner has nothing to do by itself."""

    link: MemoryTransport
    clock: Callable[[], float]
    due_s: float = 0.0

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """See Transport; what a device that never left has said before is not sent."""
        if retain and self._said(topic, payload):
            return 0
        return self.link.publish(topic, payload, retain=retain)

    def subscribe(self, *filters: str) -> None:
        """See Transport."""
        self.link.subscribe(*filters)

    def unsubscribe(self, *filters: str) -> None:
        """See Transport."""
        self.link.unsubscribe(*filters)

    def receive(self, timeout_s: float, wake: Sequence[int] = ()) -> Event | None:
        """Returns the next event, or None at once."""
        self.due_s = self.clock() + timeout_s
        return self.link.receive(0.0)

    def close(self, farewell: Message | None = None) -> None:
        """See Transport."""
        self.link.close(farewell)

    def _said(self, topic: str, payload: bytes) -> bool:
        if topic.endswith("/info"):
            return True
        if not (topic.endswith("/state") and "/d/" in topic):
            return False
        before = self.link.hub.retained.get(topic)
        known = decode_state(before) if before else _READY
        return replace(decode_state(payload), session=known.session) == known


@dataclass
class _Live:
    agent: Agent
    seat: Seat
    worker: JobWorker

    def due(self, now_s: float) -> bool:
        return bool(self.seat.link.inbox) or self.worker.ready or now_s >= self.seat.due_s

    @property
    def free(self) -> bool:
        return self.agent.work is None and not self.agent.uploads and not self.seat.link.inbox


@dataclass
class Crowd:
    """`devices` virtual devices of a recipe, with their files in `folder`."""

    recipe: Recipe
    devices: int
    folder: Path
    key: str
    hub: Hub
    jobs: Jobs
    clock: Callable[[], float]
    payload_bytes: int
    bell: MemoryTransport = field(init=False)
    pool: Pool = field(init=False)
    live: dict[str, _Live] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.bell, self.pool = MemoryTransport(self.hub), Pool(self.folder / "pool")
        self.bell.subscribe(Topics(FLEET).device("+", "plan"))

    def enter(self, registry: Registry) -> None:
        """Makes all devices known to a coordinator, as if it had come after them and the broker had told it."""
        info = dict(decode_frame(device_info(self.config(0)), Kind.INFO).header)
        for name in map(device_name, range(self.devices)):
            registry.heard_info(name, info)
            registry.heard_state(name, _READY)

    def config(self, at: int) -> AgentConfig:
        """Returns the configuration of a device, as the demo writes it."""
        recipe, name = self.recipe, device_name(at)
        data = DataConfig(recipe.task)
        if dataset_of(recipe.task) is not None:
            split = recipe.split
            data = DataConfig(recipe.task, None, recipe.split_rule, self.devices, at, split.seed, split.examples)
        return AgentConfig(
            device=name,
            fleet=FLEET,
            broker="memory",
            state_dir=self.folder / name,
            data=data,
            coordinator_key=self.key,
            personal=own_personal(recipe.personal, at),
            durable=False,
        )

    def step(self) -> bool:
        """Lets every device act that has something to do; tells whether any had."""
        busy = self._wake()
        now_s = self.clock()
        for name, live in [item for item in self.live.items() if item[1].due(now_s)]:
            busy |= bool(live.seat.link.inbox) or live.worker.ready
            while live.agent.step():
                pass
            if live.free:
                self._let_go(name)
        return busy

    @property
    def due_s(self) -> float:
        """Returns when the next device has something to do by itself."""
        return min((live.seat.due_s for live in self.live.values()), default=float("inf"))

    def _wake(self) -> bool:
        """Makes the agents of devices that were invited; tells whether there was any message."""
        heard = False
        topics = Topics(FLEET)
        while (event := self.bell.receive(0.0)) is not None:
            heard = True
            place = topics.split(event.topic) if isinstance(event, Message) and event.payload else None
            if place and place[0] not in self.live:
                self.live[place[0]] = self._made(place[0])
        return heard

    def _made(self, name: str) -> _Live:
        seat, worker = Seat(MemoryTransport(self.hub, self.payload_bytes), self.clock), JobWorker(self.jobs)
        config = self.config(int(name.rpartition("-")[2]))
        return _Live(Agent(config, seat, worker, self.clock, lambda: 0.5, lambda: _UNKNOWN), seat, worker)

    def _let_go(self, name: str) -> None:
        live = self.live.pop(name)
        live.seat.close()
        self.pool.share(live.agent.store)
        if not self.live:
            self.pool.sweep()
