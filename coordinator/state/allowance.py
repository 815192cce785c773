"""How much a device may say in a while: more is not read, so that one device does not take the time of all others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from wire.errors import Refused

__all__ = ["Allowance", "admits"]

_ASKS = 8192
_UNIT_BYTES = 512


@dataclass(slots=True)
class Allowance:
    """What each device has used since `since_s`, of `most` in `while_s` seconds.

    A device asks most when it catches up over a bad link: for up to a thousand deltas, for each of them again after a
    silence of 2 and of 4 s, and over every new link. That is half of what it may.
    """

    most: int = _ASKS
    while_s: float = 10.0
    since_s: float = float("-inf")
    used: Counter[str] = field(default_factory=Counter)

    def excess(self, device: str, now_s: float, cost: int = 1) -> int:
        """Notes what a device uses; returns by how much that is too much in all."""
        if now_s - self.since_s >= self.while_s:
            self.used.clear()
            self.since_s = now_s
        self.used[device] += cost
        return max(0, self.used[device] - self.most)


def admits(asks: Allowance, device: str, payload: bytes, now_s: float) -> bool:
    """Tells whether a question is to be read; a long one counts as several. Raises Refused at the first that is not.

    The others are dropped without a word: they cost nothing, and a device that asks too much now and then is heard
    again a moment later. It is shut out only if it goes on.
    """
    cost = 1 + len(payload) // _UNIT_BYTES
    excess = asks.excess(device, now_s, cost)
    if 0 < excess <= cost:
        raise Refused(
            f"{device!r} asks more than {asks.most} questions in {asks.while_s:g} s",
            code="E-RATE",
            remedy="look at its link and at who uses its name",
        )
    return not excess
