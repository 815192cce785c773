"""One plan in hand: what is still to be fetched, whether the child is at it, and how often it was tried."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.config import AgentConfig
from edge_agent.fetch import Fetch, plan_fetch, prune
from edge_agent.worker import KILLED, Result, Worker
from wire.errors import Declined
from wire.events import log_event
from wire.messages.plan import RoundPlan

__all__ = ["Work"]

_AGAIN = (KILLED, "E-BLOB")


@dataclass(slots=True)
class Work:
    """The state of one invitation. `asked` are the digests whose topics were subscribed.

    `distrusted` says that a blob of the store turned out wrong.
    """

    plan: RoundPlan
    frame: bytes
    fetch: Fetch | None
    asked: tuple[str, ...]
    path: tuple[str, ...] = ()
    fetched_bytes: int = 0
    training: bool = False
    distrusted: bool = False
    tries: int = 0

    @classmethod
    def begin(cls, plan: RoundPlan, frame: bytes, store: Path, now_s: float) -> Work:
        """Returns the work at its start."""
        fetch = plan_fetch(plan, store)
        fetch.asked_s = now_s
        return cls(plan, frame, fetch, tuple(fetch.wanted))

    def start(self, worker: Worker, config: AgentConfig, store: Path, outbox: Path) -> None:
        """Hands the job to the child."""
        if self.fetch:
            self.path, self.fetched_bytes = self.fetch.path, self.fetched_bytes + self.fetch.fetched_bytes
        self.fetch, self.training = None, True
        self.tries += 1
        worker.start(self._header(config, store, outbox), self.frame)

    def finished(self, result: Result, attempts: int) -> tuple[str, int] | None:
        """Returns the update's digest and size, or None to try again; raises Declined when that is pointless."""
        self.training = False
        if not result.code:
            return result.digest, result.size
        log_event("job-failed", round=self.plan.round, code=result.code, reason=result.reason, tries=self.tries)
        if result.code not in _AGAIN or self.tries >= attempts:
            raise Declined(result.reason, code=result.code)
        self.distrusted = result.code == "E-BLOB"
        return None

    def restart(self, store: Path, now_s: float) -> None:
        """Makes the work ready to start again; a store with a wrong blob is emptied and everything fetched anew."""
        if self.distrusted:
            prune(store, ())
        self.fetch = plan_fetch(self.plan, store)
        self.fetch.asked_s = now_s - self.fetch.wait_s
        self.asked = tuple(self.fetch.wanted)

    def tidy(self, store: Path) -> None:
        """Keeps what the next round may build upon: the spec, the base and the blobs that this plan names."""
        prune(store, [self.plan.spec, self.plan.base, *(ref.digest for ref in self.plan.blobs)])

    def _header(self, config: AgentConfig, store: Path, outbox: Path) -> dict[str, Any]:
        data = config.data
        return {
            "device": config.device,
            "store": str(store.absolute()),
            "outbox": str(outbox.absolute()),
            "path": list(self.path),
            "threads": config.train.threads,
            "fetched_bytes": self.fetched_bytes,
            "data": {
                "task": data.task,
                "folder": str(data.folder.absolute()) if data.folder else "",
                "split": data.split,
                "parts": data.parts,
                "part": data.part,
                "seed": data.seed,
            },
        }
