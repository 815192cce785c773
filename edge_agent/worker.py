"""Runs jobs for the resident, in a child process that may linger for the next round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edge_agent.config import TrainConfig
from edge_agent.gate import free_memory_bytes
from wire.errors import StateError
from wire.pipe import Errand

__all__ = ["ChildWorker", "Result", "Worker"]

_LOW_MEMORY_BYTES = 100_000_000
KILLED = "E-TRAIN-KILLED"


@dataclass(frozen=True, slots=True)
class Result:
    """An update's digest and size, or the code and reason why there is none."""

    digest: str = ""
    size: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    reason: str = ""


class Worker(Protocol):
    """One job at a time."""

    def start(self, header: dict[str, Any], plan: bytes) -> None:
        """Begins a job."""

    def poll(self, now_s: float) -> Result | None:
        """Returns the result once it is there."""

    def stop(self) -> None:
        """Ends whatever runs."""

    @property
    def wake(self) -> Sequence[int]:
        """Returns the file descriptors that are readable when `poll` has something."""


@dataclass(slots=True)
class ChildWorker:
    """Keeps one training child, at most `linger_s` after its last job, and not under memory pressure."""

    settings: TrainConfig
    errand: Errand = field(init=False)
    idle_since_s: float = 0.0

    def __post_init__(self) -> None:
        environment = {"BITFLEET_NICE": str(self.settings.nice), "OMP_NUM_THREADS": str(self.settings.threads)}
        self.errand = Errand("edge_agent.training.child", environment)

    def start(self, header: dict[str, Any], plan: bytes) -> None:
        """See Worker."""
        self.errand.start(header, plan)

    def poll(self, now_s: float) -> Result | None:
        """See Worker; also lets an idle child go when its time is over."""
        if not self.errand.busy:
            self._let_go(now_s)
            return None
        try:
            result = self.errand.poll()
        except StateError as exc:
            return Result(code=KILLED, reason=exc.message)
        self.idle_since_s = now_s
        return None if result is None else Result(**result)

    def stop(self) -> None:
        """See Worker."""
        self.errand.stop()

    @property
    def wake(self) -> Sequence[int]:
        """See Worker."""
        return self.errand.wake

    def _let_go(self, now_s: float) -> None:
        if self.errand.child is None:
            return
        free = free_memory_bytes()
        if now_s - self.idle_since_s >= self.settings.linger_s or (free is not None and free < _LOW_MEMORY_BYTES):
            self.errand.stop()
