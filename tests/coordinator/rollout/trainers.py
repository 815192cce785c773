"""Devices of a run that answer every plan at once, with the right update."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coordinator.recipe import Recipe
from tests.end_to_end.hostile_client import forger, whole_piece
from wire.frame import Kind, encode_frame
from wire.messages.plan import decode_plan
from wire.messages.reports import DeviceState, encode_state
from wire.topics import Topics
from wire.transport import Message, Transport, Up

__all__ = ["Trainers"]


@dataclass
class Trainers:
    """As many as a round needs; `folder` is the run's own."""

    transport: Transport
    topics: Topics
    recipe: Recipe
    folder: Path

    def step(self) -> bool:
        event = self.transport.receive(0.0)
        if isinstance(event, Up):
            self._join()
        elif isinstance(event, Message) and event.payload:
            device, _ = self.topics.split(event.topic)
            update = forger(decode_plan(event.payload), self.recipe, self.folder / "blobs").update(device)
            self.transport.publish(self.topics.device(device, "up"), whole_piece(update)[1])
        return event is not None

    def _join(self) -> None:
        for device in (f"trainer-{at}" for at in range(self.recipe.devices.goal)):
            self.transport.subscribe(self.topics.device(device, "plan"))
            info = encode_frame(Kind.INFO, {"task": self.recipe.task})
            self.transport.publish(self.topics.device(device, "info"), info, retain=True)
            ready = encode_state(DeviceState("ready", 1))
            self.transport.publish(self.topics.device(device, "state"), ready, retain=True)
