"""Peak memory of the coordinator with 10 and with 200 devices, 1 M float32 parameters, real broker and real updates.

The peak is the kernel's own (VmHWM) of the `bitfleet serve` process, which ends with the run. The devices are real
agents without training children, many to a process (see benchmarks/fleet/swarm.py).
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.fleet.kernel import peak_bytes
from benchmarks.fleet.ledger import await_published, ledger
from benchmarks.fleet.processes import fleet
from benchmarks.result import Result, at_most

__all__ = ["run"]

_FEW, _LIMIT_MB = 10, 25
_PROCESSES = 2
_MB = 1e6


@dataclass
class _Peak:
    """The largest value seen of a process that will be gone when it matters."""

    pid: int
    bytes: int = 0

    def look(self) -> None:
        """Reads the kernel's counter again."""
        self.bytes = max(self.bytes, peak_bytes(self.pid))


def run(options: Sequence[str]) -> Result:
    """Runs the same federation twice, small and large."""
    parser = argparse.ArgumentParser(prog="scripts/bench ingest")
    parser.add_argument("--elements", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--broker", default="mosquitto")
    parser.add_argument("--levels", type=int, default=0, help="quantise updates; 0 sends float32")
    asked = parser.parse_args(options)
    few, many = (_measure(asked, devices) for devices in (_FEW, asked.devices))
    figures = {**vars(asked), **_named(few, _FEW), **_named(many, asked.devices)}
    more_mb = many["peak_mb"] - few["peak_mb"]
    return Result(figures | {"difference_mb": more_mb}, (at_most("difference_mb", _LIMIT_MB, more_mb),))


def _named(found: dict[str, float], devices: int) -> dict[str, float]:
    return {f"{name}_{devices}_devices": value for name, value in found.items()}


def _measure(asked: argparse.Namespace, devices: int) -> dict[str, float]:
    with fleet(asked.broker) as place:
        place.swarm(devices, _PROCESSES)
        words = ["--devices", str(devices), "--rounds", str(asked.rounds)]
        words += ["--set", f'model="vector-{asked.elements}"']
        words += ["--set", f'uplink.stages=[{{stage="levels",levels={asked.levels}}}]'] if asked.levels else []
        coordinator = place.serve(*words)
        peak = _Peak(coordinator.pid)
        await_published(place, coordinator, asked.rounds, peak.look)
        _watch_to_the_end(coordinator, peak)
        lines = ledger(place.home)
    updates = [line for line in lines if line["event"] == "accepted"]
    if len(updates) != devices * asked.rounds or len({line["digest"] for line in updates}) != len(updates):
        raise RuntimeError(f"{len(updates)} updates from {devices} devices in {asked.rounds} rounds, or equal ones")
    return {
        "peak_mb": peak.bytes / _MB,
        "seconds": lines[-1]["at"] - lines[0]["at"],
        "refused": sum(line["event"] == "refused" for line in lines),
        "received_mb": sum(line["bytes"] for line in updates) / _MB,
    }


def _watch_to_the_end(coordinator: subprocess.Popen[bytes], peak: _Peak) -> None:
    while coordinator.poll() is None:
        try:
            peak.look()
        except OSError:
            return  # it ended in between
        time.sleep(0.01)
