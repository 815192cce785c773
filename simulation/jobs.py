"""The jobs of all virtual devices. What was started together ends together, in virtual time.

Results are known only when no job is left running, and then all at once: what happens next depends neither on how many
processes there are nor on which of them was first.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edge_agent.worker import Result
from simulation.executor import Executor

__all__ = ["JobWorker", "Jobs"]

_GLANCE_S = 0.5


@dataclass
class Jobs:
    """`running` are the tokens of jobs under way, `done` the results that nobody has taken yet."""

    executor: Executor
    running: set[int] = field(default_factory=set)
    done: dict[int, Result] = field(default_factory=dict)

    def start(self, header: Mapping[str, Any], plan: bytes) -> int:
        """Starts a job and returns its token."""
        token = self.executor.start(header, plan)
        self.running.add(token)
        return token

    def gather(self, watch: Callable[[], None]) -> None:
        """Waits until no job is running; `watch` is called as they end."""
        while self.running:
            found = self.executor.poll()
            self.done |= {token: result for token, result in found if token in self.running}
            self.running.difference_update(token for token, _ in found)
            if not found and self.executor.wake:
                select.select(self.executor.wake, [], [], _GLANCE_S)
            watch()

    def drop(self, token: int) -> None:
        """Forgets a job."""
        if token in self.running:
            self.running.discard(token)
            self.executor.drop(token)
        self.done.pop(token, None)


@dataclass
class JobWorker:
    """A device's Worker (see edge_agent/worker.py) onto the jobs of all."""

    jobs: Jobs
    token: int = 0
    wake: Sequence[int] = ()

    @property
    def ready(self) -> bool:
        """Tells whether the result is there."""
        return self.token in self.jobs.done

    def start(self, header: dict[str, Any], plan: bytes) -> None:
        """See Worker."""
        self.token = self.jobs.start(header, plan)

    def poll(self, now_s: float) -> Result | None:
        """See Worker."""
        return self.jobs.done.pop(self.token, None)

    def stop(self) -> None:
        """See Worker."""
        self.jobs.drop(self.token)
        self.token = 0
