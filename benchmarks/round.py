"""Seconds a round and CPU a client-round with 4 and 10 real agents, 100,000 float parameters, both brokers.

A round is counted from one "published" in the ledger to the next. CPU is all that the agents, their children, the
broker and the coordinator spend after the first rounds, by the kernel's count. Nothing is taken off: "job" is the part
that the children measured themselves (build the base, make the noise), which is in "children".
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, quantiles

from benchmarks.fleet.kernel import cpu_s, family
from benchmarks.fleet.ledger import Line, await_published, ledger, published_s
from benchmarks.fleet.processes import Fleet, fleet
from benchmarks.result import Figure, Requirement, Result, at_most

__all__ = ["measure", "run"]

_LIMITS_S = {4: 0.25, 10: 0.4}
_CPU_LIMIT_MS = 50
_WARM = 3


@dataclass(frozen=True, slots=True)
class _Sample:
    """Rounds published and CPU seconds by role, at one moment."""

    rounds: int
    cpu_s: dict[str, float]


def run(options: Sequence[str]) -> Result:
    """Runs every combination in turn."""
    parser = argparse.ArgumentParser(prog="scripts/bench round")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--elements", type=int, default=100_000)
    parser.add_argument("--brokers", default="mosquitto,iotcore")
    asked = parser.parse_args(options)
    figures: dict[str, Figure] = {"rounds": asked.rounds, "elements": asked.elements}
    requirements: list[Requirement] = []
    for broker in asked.brokers.split(","):
        for devices, limit_s in _LIMITS_S.items():
            found = measure(broker, devices, asked.rounds, asked.elements)
            figures |= {f"{broker}_{devices}_{name}": value for name, value in found.items()}
            case = f"{broker}_{devices}"
            requirements.append(at_most(f"{case}_round_s", limit_s, found["round_s"]))
            requirements.append(at_most(f"{case}_cpu_ms_client_round", _CPU_LIMIT_MS, found["cpu_ms_client_round"]))
    return Result(figures, tuple(requirements))


def measure(broker: str, devices: int, rounds: int, elements: int) -> dict[str, float]:
    """Returns the figures of one federation."""
    with fleet(broker) as place:
        place.join(devices)
        words = ("--devices", str(devices), "--rounds", str(rounds + _WARM), "--set", f'model="vector-{elements}"')
        coordinator = place.serve(*words)
        start = _sample(place, coordinator.pid, await_published(place, coordinator, _WARM))
        end = _sample(place, coordinator.pid, await_published(place, coordinator, _WARM + rounds - 1))
        coordinator.wait(60)
        lines = ledger(place.home)
    return _seconds(lines) | _cpu(lines, devices, start, end)


def _sample(place: Fleet, coordinator: int, rounds: int) -> _Sample:
    agents = [agent.pid for agent in place.agents.values()]
    children = [child for agent in agents for child in family(agent)[1:]]
    roles = {"agents": agents, "children": children, "broker": [place.broker.pid or 0], "coordinator": [coordinator]}
    return _Sample(rounds, {role: sum(map(cpu_s, pids)) for role, pids in roles.items()})


def _seconds(lines: list[Line]) -> dict[str, float]:
    at_s = published_s(lines)[_WARM - 1 :]
    gaps = [after - before for before, after in pairwise(at_s)]
    return {"round_s": median(gaps), "round_p90_s": quantiles(gaps, n=10)[-1]}


def _cpu(lines: list[Line], devices: int, start: _Sample, end: _Sample) -> dict[str, float]:
    client_rounds = (end.rounds - start.rounds) * devices
    spent = {role: (end.cpu_s[role] - start.cpu_s[role]) * 1e3 / client_rounds for role in end.cpu_s}
    jobs = [each["metrics"]["cpu_s"] for each in lines if each["event"] == "accepted"]
    job_ms = sum(jobs) * 1e3 / len(jobs)
    parts = {f"{role}_cpu_ms_client_round": value for role, value in spent.items()}
    return {"cpu_ms_client_round": sum(spent.values()), **parts, "job_cpu_ms_client_round": job_ms}
