"""Where the jobs of virtual devices run: in this process, or in several on this machine.

A job is what an agent hands to its training child: a header and a plan. Its files lie in folders that header names.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from edge_agent.training.child import answer
from edge_agent.worker import KILLED, Result
from simulation.child import Shares
from wire.errors import StateError
from wire.frame import Kind, decode_frame, encode_frame
from wire.pipe import Errand

__all__ = ["Executor", "InlineExecutor", "LocalExecutor"]

_ENVIRONMENT = {"OMP_NUM_THREADS": "1"}


class Executor(Protocol):
    """Takes any number of jobs and runs each of them once."""

    def start(self, header: Mapping[str, Any], plan: bytes) -> int:
        """Takes a job and returns its token."""

    def poll(self) -> list[tuple[int, Result]]:
        """Returns the jobs that have ended since; one whose process was killed has the code E-TRAIN-KILLED."""

    def drop(self, token: int) -> None:
        """Forgets a job, whatever it is doing."""

    def stop(self) -> None:
        """Ends all that runs."""

    @property
    def wake(self) -> Sequence[int]:
        """Returns the file descriptors of which one is readable when `poll` may have something; none: poll at once."""


@dataclass(slots=True)
class InlineExecutor:
    """Runs one job with each poll, in this process."""

    common: Shares = field(default_factory=Shares)
    waiting: dict[int, tuple[Mapping[str, Any], bytes]] = field(default_factory=dict)
    started: int = 0
    wake: Sequence[int] = ()

    def start(self, header: Mapping[str, Any], plan: bytes) -> int:
        """See Executor."""
        self.started += 1
        self.waiting[self.started] = header, plan
        return self.started

    def poll(self) -> list[tuple[int, Result]]:
        """See Executor."""
        if not self.waiting:
            return []
        token = next(iter(self.waiting))
        header, plan = self.waiting.pop(token)
        job = decode_frame(encode_frame(Kind.JOB, header, plan), Kind.JOB)
        return [(token, Result(**answer(job, self.common)))]

    def drop(self, token: int) -> None:
        """See Executor."""
        self.waiting.pop(token, None)

    def stop(self) -> None:
        """See Executor."""
        self.waiting.clear()


@dataclass(slots=True)
class _Slot:
    errand: Errand = field(default_factory=lambda: Errand("simulation.child", _ENVIRONMENT))
    token: int = 0


@dataclass(slots=True)
class LocalExecutor:
    """Runs jobs in `workers` child processes of one thread each; a killed one is started again with its next job."""

    workers: int
    slots: list[_Slot] = field(init=False)
    waiting: deque[tuple[int, Mapping[str, Any], bytes]] = field(default_factory=deque)
    started: int = 0

    def __post_init__(self) -> None:
        self.slots = [_Slot() for _ in range(self.workers)]

    def start(self, header: Mapping[str, Any], plan: bytes) -> int:
        """See Executor."""
        self.started += 1
        self.waiting.append((self.started, header, plan))
        self._fill()
        return self.started

    def poll(self) -> list[tuple[int, Result]]:
        """See Executor."""
        found = [(slot.token, result) for slot in self.slots if slot.token and (result := _result(slot.errand))]
        ended = {token for token, _ in found}
        for slot in self.slots:
            slot.token = 0 if slot.token in ended else slot.token
        self._fill()
        return found

    def drop(self, token: int) -> None:
        """See Executor."""
        self.waiting = deque(job for job in self.waiting if job[0] != token)
        for slot in self.slots:
            if slot.token == token:
                slot.errand.stop()
                slot.token = 0
        self._fill()

    def stop(self) -> None:
        """See Executor."""
        self.waiting.clear()
        for slot in self.slots:
            slot.errand.stop()
            slot.token = 0

    @property
    def wake(self) -> Sequence[int]:
        """See Executor."""
        return [fd for slot in self.slots for fd in slot.errand.wake]

    def _fill(self) -> None:
        for slot in self.slots:
            if not slot.token and self.waiting:
                slot.token, header, plan = self.waiting.popleft()
                slot.errand.start(header, plan)


def _result(errand: Errand) -> Result | None:
    try:
        found = errand.poll()
    except StateError as exc:
        return Result(code=KILLED, reason=exc.message)
    return None if found is None else Result(**found)
