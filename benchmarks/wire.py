"""Uplink bytes a client-round at 100,000 parameters: by the ledger's accounts, and at the socket through a relay.

The relay stands between the agents and the broker and counts what TCP carries. It is read before the coordinator comes
and after it has gone, so connecting (CONNECT, subscriptions, the device's description) is left out, and everything else
is in: pieces, questions, states, acknowledgements, pings, and the spec that every device fetches once in a run.
"Fixed" is all that less the packed values themselves.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from benchmarks.fleet.ledger import await_published, ledger
from benchmarks.fleet.processes import fleet
from benchmarks.result import Figure, Requirement, Result, at_most
from tests.relay import Relay
from wire.stages.chain import Chain

__all__ = ["measure", "run"]

_LEVELS: dict[str, int | None] = {"float32": None, "8bit": 127, "4bit": 7, "1level": 1}
_LIMITS = {"float32": 1.01, "8bit": 0.26, "4bit": 0.135, "1level": 0.065}
_FIXED_LIMIT_BYTES = 1000
_QUIET_S = 1.0


def run(options: Sequence[str]) -> Result:
    """Runs each coding in turn."""
    parser = argparse.ArgumentParser(prog="scripts/bench wire")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--elements", type=int, default=100_000)
    parser.add_argument("--broker", default="mosquitto")
    asked = parser.parse_args(options)
    figures: dict[str, Figure] = dict(vars(asked))
    requirements: list[Requirement] = []
    for name, levels in _LEVELS.items():
        found = measure(asked.broker, asked.devices, asked.rounds, asked.elements, levels)
        figures |= {f"{name}_{key}": value for key, value in found.items()}
        requirements.append(at_most(f"{name}_socket_over_4p", _LIMITS[name], found["socket_over_4p"]))
        requirements.append(at_most(f"{name}_ledger_over_4p", _LIMITS[name], found["ledger_over_4p"]))
        requirements.append(at_most(f"{name}_fixed_bytes", _FIXED_LIMIT_BYTES, found["fixed_bytes"]))
    return Result(figures, tuple(requirements))


def measure(broker: str, devices: int, rounds: int, elements: int, levels: int | None) -> dict[str, float]:
    """Returns the bytes a client-round of one federation; without levels it sends float32."""
    stages = [] if levels is None else [{"stage": "levels", "levels": levels}]
    words = ["--devices", str(devices), "--rounds", str(rounds), "--set", f'model="vector-{elements}"']
    words += ["--set", f'uplink.stages=[{{stage="levels",levels={levels}}}]'] if stages else []
    with fleet(broker) as place, Relay(place.broker.port) as relay:
        place.join(devices, relay.port)
        before = _quiet(relay, devices)
        coordinator = place.serve(*words)
        await_published(place, coordinator, rounds)
        coordinator.wait(60)
        after = _quiet(relay, devices)
        traffic = [line for line in ledger(place.home) if line["event"] == "traffic"]
    up, down = ((after[way] - before[way]) / (rounds * devices) for way in (0, 1))
    counted = sum(sum(line["up"].values()) for line in traffic) / (rounds * devices)
    packed, plain = Chain.of(stages).shapes(elements)[-1].size, 4 * elements
    return {
        "packed_bytes": packed,
        "socket_up_bytes": up,
        "socket_down_bytes": down,
        "ledger_up_bytes": counted,
        "fixed_bytes": up - packed,
        "socket_over_4p": up / plain,
        "ledger_over_4p": counted / plain,
    }


def _quiet(relay: Relay, devices: int) -> tuple[int, int]:
    """Returns the bytes up and down once all devices are connected and nothing has moved for a moment."""
    since_s, seen = time.monotonic(), (0, 0)
    while time.monotonic() - since_s < _QUIET_S or len(relay.connections) < devices:
        time.sleep(0.05)
        if seen != (seen := (relay.up_bytes, relay.down_bytes)):
            since_s = time.monotonic()
    return seen
