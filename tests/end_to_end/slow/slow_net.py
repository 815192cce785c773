"""A network namespace behind a cable of so many kbit/s that can be pulled out; only root may have one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SlowNet", "slow_net"]


def ip(*words: str, tool: str = "ip") -> bool:
    """Runs ip or tc and tells whether it worked."""
    try:
        return not subprocess.run([tool, *words], capture_output=True, check=False).returncode
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class SlowNet:
    """`name` is the namespace, `here` our end of the cable and `address` what it has."""

    name: str
    here: str
    address: str

    @property
    def up_bytes(self) -> int:
        """Returns what came out of the namespace, headers and all."""
        return int(Path(f"/sys/class/net/{self.here}/statistics/rx_bytes").read_text())

    def pull(self) -> None:
        ip("link", "set", self.here, "down")

    def plug(self) -> None:
        ip("link", "set", self.here, "up")


@contextmanager
def slow_net(kbit: int) -> Iterator[SlowNet | None]:
    """Makes the namespace, or None where that is not allowed."""
    tag = str(os.getpid() % 100_000)
    net = SlowNet(f"bitfleet-{tag}", f"bfa{tag}", f"10.231.{os.getpid() % 250}.1")
    there, far = f"bfb{tag}", net.address[:-1] + "2"
    inside, slowed = ("-n", net.name), ("root", "tbf", "rate", f"{kbit}kbit", "burst", "4kb", "latency", "2s")
    made = ip("netns", "add", net.name) and all(
        (
            ip("link", "add", net.here, "type", "veth", "peer", "name", there, "netns", net.name),
            ip("addr", "add", f"{net.address}/30", "dev", net.here),
            ip("link", "set", net.here, "up"),
            ip(*inside, "addr", "add", f"{far}/30", "dev", there),
            ip(*inside, "link", "set", there, "up"),
            ip("qdisc", "add", "dev", net.here, *slowed, tool="tc"),
            ip(*inside, "qdisc", "add", "dev", there, *slowed, tool="tc"),
        )
    )
    try:
        yield net if made else None
    finally:
        ip("link", "del", net.here)
        ip("netns", "del", net.name)
