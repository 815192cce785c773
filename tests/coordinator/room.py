"""A coordinator alone in a room with somebody who plays every device."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.home import Home
from coordinator.recipe import Recipe
from tests.end_to_end.hostile_client import Intruder, forger
from tests.memory_fleet import InlineEvaluator
from wire.frame import Kind, encode_frame
from wire.messages.plan import decode_plan
from wire.messages.reports import DeviceState, encode_state
from wire.topics import Topics
from wire.transport import Hub, MemoryTransport

__all__ = ["Room"]

TOPICS = Topics("test")


@dataclass
class Room:
    """A coordinator alone with a client that plays every device."""

    home: Home
    recipe: Recipe
    hub: Hub = field(default_factory=Hub)
    clock_s: float = 0.0

    def __post_init__(self):
        self.run = self.home.new_run(self.recipe)
        coordinator = MemoryTransport(self.hub)
        self.federation = self.home.federation(self.run, "test", coordinator, InlineEvaluator(), lambda: self.clock_s)
        self.intruder = Intruder(MemoryTransport(self.hub), TOPICS)
        self.intruder.listen()
        self.settle()

    @property
    def state(self):
        return self.federation.state

    def settle(self):
        while any([self.federation.step(0.0), self.intruder.step()]):
            pass

    def join(self, *devices):
        for device in devices:
            for leaf, payload in (
                ("info", encode_frame(Kind.INFO, {"task": "echo"})),
                ("state", encode_state(DeviceState("ready", 1))),
            ):
                self.intruder.transport.publish(TOPICS.device(device, leaf), payload, retain=True)
        self.settle()

    def forger(self, device="dev-0"):
        folder = self.home.run_folder(self.run) / "blobs"
        return forger(decode_plan(self.hub.retained[TOPICS.device(device, "plan")]), self.recipe, folder)

    def send(self, device, update):
        digest = self.intruder.send_up(device, update)
        self.settle()
        return digest

    def say(self, device, leaf, payload):
        digest = self.intruder.say(device, leaf, payload)
        self.settle()
        return digest

    def noted(self, event, **wanted):
        ledger = [line for line in self.home.database.ledger(self.run) if line["event"] == event]
        return [line for line in ledger if wanted.items() <= line.items()]

    def outcome(self, device):
        return self.state.book.outcomes(self.state.number).get(device)
