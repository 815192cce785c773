"""What was said of the device's state last, and when a change is worth a message."""

from __future__ import annotations

from dataclasses import dataclass

from wire.messages.reports import DeviceState, encode_state
from wire.transport import Transport

__all__ = ["Presence"]

_SETTLES_S = 0.3


@dataclass(slots=True)
class Presence:
    """`said` is None where nobody has heard anything yet; `changed_s` is when the state was last as it was said."""

    said: DeviceState | None = None
    changed_s: float = 0.0

    def say(self, transport: Transport, topic: str, state: DeviceState, now_s: float) -> None:
        """Publishes the state once it has held for a moment, so that a quick round costs no messages."""
        if state == self.said:
            self.changed_s = now_s
        elif self.said is None or now_s - self.changed_s >= _SETTLES_S:
            transport.publish(topic, encode_state(state), retain=True)
            self.said, self.changed_s = state, now_s

    def due_s(self, state: DeviceState, now_s: float) -> float:
        """Returns in how many seconds there may be something to say."""
        return float("inf") if state == self.said else self.changed_s + _SETTLES_S - now_s
