"""A token bucket: how long a piece has to wait so that a link carries no more than its rate."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Bucket"]


@dataclass
class Bucket:
    """`busy_until_s` is when a link of this rate would have carried all that passed so far."""

    rate_bytes_s: float
    burst_bytes: float
    busy_until_s: float = 0.0

    def wait_s(self, count: int, now_s: float) -> float:
        """Takes `count` bytes out of the bucket and returns how long they have to wait."""
        earliest_s = now_s - self.burst_bytes / self.rate_bytes_s  # an idle link saves up no more than a burst
        self.busy_until_s = max(self.busy_until_s, earliest_s) + count / self.rate_bytes_s
        return max(0.0, self.busy_until_s - now_s)
