"""Network namespaces on a bridge, each behind a cable with a token bucket filter each way; only root may have them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Nets", "namespaces"]

_PREFIX = "bfl"
_FILTER = ("burst", "4kb", "latency", "400ms")  # a larger burst would carry a whole small update at once


@dataclass(frozen=True, slots=True)
class Nets:
    """`names` are the namespaces, `address` is what they reach this side under."""

    names: tuple[str, ...]
    address: str


@contextmanager
def namespaces(count: int, up_bits_s: int, down_bits_s: int) -> Iterator[Nets | None]:
    """Makes so many namespaces, or yields None where that is not allowed; they go with the block."""
    _sweep()
    bridge, net = f"{_PREFIX}{os.getpid()}", f"10.232.{os.getpid() % 250}"
    nets = Nets(tuple(f"{bridge}-{at}" for at in range(count)), f"{net}.1")
    try:
        made = _bridge(bridge, nets.address) and all(
            _cable(bridge, name, f"{net}.{at + 2}", up_bits_s, down_bits_s) for at, name in enumerate(nets.names)
        )
        yield nets if made else None
    finally:
        _remove(bridge, nets.names)


def _bridge(name: str, address: str) -> bool:
    return (
        _did("ip", "link", "add", name, "type", "bridge")
        and _did("ip", "addr", "add", f"{address}/24", "dev", name)
        and _did("ip", "link", "set", name, "up")
    )


def _cable(bridge: str, name: str, address: str, up_bits_s: int, down_bits_s: int) -> bool:
    here, inside = name.replace("-", "v"), ("-n", name)
    ends = ("ip", "link", "add", here, "type", "veth", "peer", "name", "uplink", "netns", name)
    up, down = (("root", "tbf", "rate", f"{rate}bit", *_FILTER) for rate in (up_bits_s, down_bits_s))
    return (
        _did("ip", "netns", "add", name)
        and _did(*ends)
        and _did("ip", "link", "set", here, "master", bridge, "up")
        and _did("ip", *inside, "addr", "add", f"{address}/24", "dev", "uplink")
        and _did("ip", *inside, "link", "set", "uplink", "up")
        and _did("tc", "qdisc", "add", "dev", here, *down)
        and _did("tc", *inside, "qdisc", "add", "dev", "uplink", *up)
    )


def _remove(bridge: str, names: tuple[str, ...]) -> None:
    for name in names:
        _did("ip", "netns", "del", name)  # its cable goes with it
    _did("ip", "link", "del", bridge)


def _sweep() -> None:
    """Removes what a killed run left: its namespaces bear the id of a process that is gone."""
    for path in Path("/run/netns").glob(f"{_PREFIX}*-*"):
        bridge = path.name.partition("-")[0]
        number = bridge.removeprefix(_PREFIX)
        if number.isdecimal() and not Path(f"/proc/{number}").exists():
            _remove(bridge, (path.name,))


def _did(*command: str) -> bool:
    try:
        return not subprocess.run(command, capture_output=True, check=False, timeout=30).returncode
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
