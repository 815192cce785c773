"""Bytes as they travel between the broker and each device, counted message by message at their size in packets."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Accounts", "packet_bytes"]

_SEVEN_BITS = 128


def packet_bytes(topic: str, payload_bytes: int) -> int:
    """Returns the size of an MQTT 5 PUBLISH packet with QoS 1 and no properties."""
    rest = 2 + len(topic.encode()) + 2 + 1 + payload_bytes
    length_bytes, size = 1, rest
    while size >= _SEVEN_BITS:
        size //= _SEVEN_BITS
        length_bytes += 1
    return 1 + length_bytes + rest


@dataclass(slots=True)
class Accounts:
    """What travelled since the last `take`, by device; packets without payload (acknowledgements) are not counted."""

    up: Counter[str] = field(default_factory=Counter)
    down: Counter[str] = field(default_factory=Counter)

    def sent(self, device: str, topic: str, payload_bytes: int) -> None:
        """Counts a message to a device."""
        self.down[device] += packet_bytes(topic, payload_bytes)

    def heard(self, device: str, topic: str, payload_bytes: int) -> None:
        """Counts a message from a device."""
        self.up[device] += packet_bytes(topic, payload_bytes)

    def take(self) -> tuple[dict[str, int], dict[str, int]]:
        """Returns what was counted and starts anew."""
        counted = dict(self.up), dict(self.down)
        self.up.clear()
        self.down.clear()
        return counted
