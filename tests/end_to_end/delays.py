"""Makes devices of a federation in one process slow or absent, and lets the clock run on meanwhile."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tests.inline_worker import InlineWorker
from tests.memory_fleet import MemoryFleet
from wire.transport import Down, MemoryTransport

__all__ = [
    "SlowWorker",
    "accepted",
    "come_back",
    "finish",
    "go_away",
    "leave_with_an_update",
    "noted",
    "published",
    "reported",
    "turn_until",
]


@dataclass
class SlowWorker:
    """Takes `takes_s` of the fleet's clock for every job, and leaves nothing before."""

    fleet: MemoryFleet
    takes_s: float
    ends_s: float = 0.0
    job: tuple | None = None
    inner: InlineWorker = field(default_factory=InlineWorker)
    wake: tuple[int, ...] = ()

    def start(self, header, plan):
        self.job, self.ends_s = (header, plan), self.fleet.clock_s + self.takes_s

    def poll(self, now_s):
        if self.job is None or now_s < self.ends_s:
            return None
        self.inner.start(*self.job)
        self.job = None
        return self.inner.poll(now_s)

    def stop(self):
        self.job = None


def turn_until(fleet, so, stride_s=1.0, longest=20_000):
    for _ in range(longest):
        if so():
            return
        if not fleet.turn():
            fleet.clock_s += stride_s
    raise AssertionError(f"{fleet.federation.state.row}, {[agent.presence.said for agent in fleet.agents]}")


def finish(fleet, stride_s=1.0):
    turn_until(fleet, lambda: fleet.federation.over, stride_s)
    return fleet.federation.state.planner.model_digest


def noted(fleet, event, **wanted):
    lines = [line for line in fleet.home.database.ledger(fleet.run) if line["event"] == event]
    return [line for line in lines if wanted.items() <= line.items()]


def published(fleet):
    return {line["round"] for line in noted(fleet, "phase", phase="published")}


def reported(fleet):
    return {line["round"]: (line["reported"], line["missing"]) for line in noted(fleet, "phase", phase="aggregation")}


def accepted(fleet, device):
    return [(line["round"], line["into"]) for line in noted(fleet, "accepted", device=device)]


def go_away(fleet, agent, will=True):
    """Breaks the link of a device; without a will nobody is told."""
    old = agent.transport
    if will:
        old.drop()
    else:
        fleet.hub.leave(old)
    old.inbox = deque([Down("gone")])


def come_back(fleet, agent):
    agent.transport = MemoryTransport(fleet.hub, will=agent.transport.will)


def leave_with_an_update(fleet, agent):
    """Lets a device train, and breaks its link before a piece is up."""
    agent.worker = SlowWorker(fleet, 5.0)
    turn_until(fleet, lambda: agent.work and agent.work.training)
    go_away(fleet, agent)
    turn_until(fleet, lambda: agent.uploads)
    agent.worker = InlineWorker()
