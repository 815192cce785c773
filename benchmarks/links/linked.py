"""A broker and a folder for a fleet, with a link of its own for each device."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom

from benchmarks.fleet.processes import Fleet
from benchmarks.links.namespaces import Nets, namespaces
from benchmarks.links.relay import relays
from coordinator.broker import start_broker
from wire.errors import TransportError
from wire.sign import make_key

__all__ = ["DOWN_BITS_S", "UP_BITS_S", "Linked", "linked"]

UP_BITS_S = 1_000_000
DOWN_BITS_S = 4_000_000
_NAMESPACES = "network namespaces with tbf, 4 KiB of burst, no delay added"
_RELAY = "a TCP relay for each device with token buckets, 4 KiB of burst, no delay added"


@dataclass(frozen=True, slots=True)
class Linked:
    """`within` are the words before each agent's command, `urls` where it finds the broker, `how` says it in words."""

    place: Fleet
    within: tuple[tuple[str, ...], ...]
    urls: tuple[str, ...]
    how: str


@contextmanager
def linked(folder: Path, count: int, kind: str, how: str) -> Iterator[Linked]:
    """Starts the broker behind links; `how` is auto, namespaces or relay. Everything ends with the block."""
    (folder / "home").mkdir(parents=True)
    make_key(folder / "home" / "round.key")
    with ExitStack() as stack:
        nets = None
        if how != "relay" and kind in ("auto", "mosquitto"):  # the embedded broker listens on the loopback alone
            nets = stack.enter_context(namespaces(count, UP_BITS_S, DOWN_BITS_S))
        made = _in_namespaces(stack, folder, nets) if nets and _has_mosquitto(kind, folder) else None
        if made is None and how == "namespaces":
            raise TransportError("no network namespaces here", remedy="be root and install ip, tc and mosquitto")
        yield made or _behind_relays(stack, folder, count, kind)


def _in_namespaces(stack: ExitStack, folder: Path, nets: Nets) -> Linked:
    port = _free_port()
    listeners = {"listener": f"{port} 127.0.0.1\nlistener {port} {nets.address}"}
    broker = stack.enter_context(start_broker("mosquitto", folder / "broker", port, settings=listeners))
    within = tuple(("ip", "netns", "exec", name) for name in nets.names)
    url = f"mqtt://{nets.address}:{port}"
    return Linked(Fleet(folder, broker, stack), within, (url,) * len(within), _NAMESPACES)


def _behind_relays(stack: ExitStack, folder: Path, count: int, kind: str) -> Linked:
    broker = stack.enter_context(start_broker(kind, folder / "broker"))
    ports = stack.enter_context(relays(count, broker.port, UP_BITS_S, DOWN_BITS_S))
    urls = tuple(f"mqtt://127.0.0.1:{port}" for port in ports)
    return Linked(Fleet(folder, broker, stack), ((),) * count, urls, _RELAY)


def _has_mosquitto(kind: str, folder: Path) -> bool:
    """Tells what `auto` would choose, by starting it for a moment."""
    if kind == "mosquitto":
        return True
    with start_broker(kind, folder / "probe") as broker:
        return broker.kind == "mosquitto"


def _free_port() -> int:
    """Returns a free port below those that outgoing connections get."""
    for port in SystemRandom().sample(range(20000, 32000), 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise TransportError("no free port from 20000 to 32000", remedy="end what holds them")
