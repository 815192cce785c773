"""Runs jobs in this very process: for simulation and tests, where a child a device would cost more than it protects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edge_agent.training.child import answer
from edge_agent.worker import Result
from wire.frame import Kind, decode_frame, encode_frame

__all__ = ["InlineWorker"]


@dataclass(slots=True)
class InlineWorker:
    """A Worker whose result is there at the first poll."""

    result: Result | None = None
    wake: Sequence[int] = ()

    def start(self, header: dict[str, Any], plan: bytes) -> None:
        """See Worker."""
        self.result = Result(**answer(decode_frame(encode_frame(Kind.JOB, header, plan), Kind.JOB)))

    def poll(self, now_s: float) -> Result | None:
        """See Worker."""
        result, self.result = self.result, None
        return result

    def stop(self) -> None:
        """See Worker."""
        self.result = None
