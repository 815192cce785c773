"""Runs jobs for the resident, in a child process that may linger for the next round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edge_agent.config import TrainConfig
from edge_agent.gate import free_memory_bytes
from wire.errors import StateError, WireError
from wire.frame import Kind
from wire.pipe import Child

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
    child: Child | None = None
    busy: bool = False
    idle_since_s: float = 0.0

    def start(self, header: dict[str, Any], plan: bytes) -> None:
        """See Worker."""
        if self.child is None or self.child.ended:
            self.stop()
            threads = str(self.settings.threads)
            environment = {"BITFLEET_NICE": str(self.settings.nice), "OMP_NUM_THREADS": threads}
            self.child = Child.start("edge_agent.training.child", environment)
        self.busy = True
        try:
            self.child.send(Kind.JOB, header, plan)
        except StateError:
            return  # the next poll finds the child gone and says how it ended

    def poll(self, now_s: float) -> Result | None:
        """See Worker; also lets an idle child go when its time is over."""
        if self.child is None:
            return None
        if not self.busy:
            self._let_go(now_s)
            return None
        try:
            frame = self.child.read(Kind.RESULT)
        except (WireError, OSError) as exc:
            return self._failed(f"the training child sent nonsense: {exc}")
        if frame is not None:
            self.busy, self.idle_since_s = False, now_s
            return Result(**frame.header)
        return self._failed("") if self.child.ended else None

    def stop(self) -> None:
        """See Worker."""
        if self.child is not None:
            self.child.stop()
        self.child, self.busy = None, False

    @property
    def wake(self) -> Sequence[int]:
        """See Worker."""
        return (self.child.fd,) if self.child is not None and self.busy else ()

    def _failed(self, reason: str) -> Result:
        child = self.child
        self.stop()
        return Result(code=KILLED, reason=reason or f"the training child was {child.ending() if child else 'gone'}")

    def _let_go(self, now_s: float) -> None:
        free = free_memory_bytes()
        if now_s - self.idle_since_s >= self.settings.linger_s or (free is not None and free < _LOW_MEMORY_BYTES):
            self.stop()
