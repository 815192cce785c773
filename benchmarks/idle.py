"""What an agent costs a board while it waits: memory, processes, bytes a minute on the wire, processor share.

A real `bitfleet-agent run` against mosquitto, through a relay that counts. It first takes part in one round of a real
coordinator with signed plans and receipts, so everything that it ever loads is loaded; then the coordinator goes, the
training child has left (linger_s = 0), and the minutes are counted.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fleet.kernel import cpu_s, family, peak_bytes, resident_bytes
from benchmarks.fleet.ledger import await_published, ledger
from benchmarks.fleet.processes import Fleet, fleet
from benchmarks.result import Result, at_most
from tests.relay import Relay

__all__ = ["run"]

_SETTLE_S = 3.0
_MB = 1e6


def run(options: Sequence[str]) -> Result:
    """Lets one agent do a round, then watches it do nothing for `--seconds`."""
    parser = argparse.ArgumentParser(prog="scripts/bench idle")
    parser.add_argument("--seconds", type=float, default=180, help="three keep-alives unless said otherwise")
    parser.add_argument("--elements", type=int, default=100_000)
    asked = parser.parse_args(options)
    with fleet("mosquitto") as place, Relay(place.broker.port) as relay:
        place.join(1, relay.port, train="linger_s = 0.0\n")
        _one_round(place, asked.elements)
        return _watch(place.agents["device-00"].pid, relay, asked.seconds)


def _one_round(place: Fleet, elements: int) -> None:
    coordinator = place.serve("--devices", "1", "--rounds", "1", "--set", f'model="vector-{elements}"')
    await_published(place, coordinator, 1)
    coordinator.wait(60)
    if not any(line["event"] == "accepted" for line in ledger(place.home)):
        raise RuntimeError("the agent took no part in the round: what it loads for one would not be measured")
    if "cryptography" not in Path(f"/proc/{place.agents['device-00'].pid}/maps").read_text():
        raise RuntimeError("the agent has not loaded what checks signatures: its memory would be measured too small")
    time.sleep(_SETTLE_S)


def _watch(pid: int, relay: Relay, seconds: float) -> Result:
    began_s, up, down, spent_s = time.monotonic(), relay.up_bytes, relay.down_bytes, cpu_s(pid)
    time.sleep(seconds)
    lasted_s = time.monotonic() - began_s
    up, down, spent_s = relay.up_bytes - up, relay.down_bytes - down, cpu_s(pid) - spent_s
    resident_mb, share = resident_bytes(pid) / _MB, 100 * spent_s / lasted_s
    kb_min = (up + down) / 1e3 / (lasted_s / 60)
    figures = {
        "watched_s": lasted_s,
        "resident_mb": resident_mb,
        "peak_mb": peak_bytes(pid) / _MB,
        "processes": len(family(pid)),
        "up_bytes": up,
        "down_bytes": down,
        "wire_kb_min": kb_min,
        "connections": len(relay.connections),
        "cpu_percent_of_a_core": share,
    }
    return Result(
        figures,
        (
            at_most("processes", 1, figures["processes"]),
            at_most("resident_mb", 45, resident_mb),
            at_most("wire_kb_min", 0.2, kb_min),
            at_most("cpu_percent_of_a_core", 0.1, share),
        ),
    )
