"""One plan in hand: what is still to be fetched, whether the child is at it, and how often it was tried."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_agent.config import AgentConfig
from edge_agent.fetch import Fetch, held_models, older_deltas, plan_fetch, prune
from edge_agent.kept.memory import MEMORY
from edge_agent.upload import Upload
from edge_agent.worker import KILLED, Result, Worker
from wire.errors import Declined
from wire.events import log_event
from wire.messages.plan import RoundPlan
from wire.topics import Topics
from wire.transport import Transport

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
    ends_s: float = float("inf")

    @classmethod
    def begin(cls, plan: RoundPlan, frame: bytes, store: Path, now_s: float) -> Work:
        """Returns the work at its start; what no later plan can build upon leaves the store first."""
        prune(store, _useful(plan) | _on_the_way(plan, store))
        fetch = plan_fetch(plan, store)
        fetch.asked_s = now_s
        return cls(plan, frame, fetch, tuple(fetch.wanted), ends_s=now_s + plan.deadline_s)

    def check_deadline(self, now_s: float) -> None:
        """Raises Declined if the round is over before its model has arrived."""
        if self.fetch is not None and now_s >= self.ends_s:
            raise Declined(f"the model did not arrive within {self.plan.deadline_s:.0f} s", code="E-DEADLINE")

    def waits_for(self, uploads: Iterable[Upload]) -> bool:
        """Tells whether what became of an earlier update must be known before this round's training."""
        return self.plan.remembers and any(upload.entry.run == self.plan.run for upload in uploads)

    def follow_chain(self, store: Path, now_s: float) -> bool:
        """Looks for the way again once the chain is there; tells whether there was a chain to follow."""
        if self.fetch is None or not self.fetch.follows:
            return False
        self.fetched_bytes += self.fetch.fetched_bytes
        pieces = self.fetch.piece_bytes
        self.fetch = plan_fetch(self.plan, store)
        self.fetch.asked_s, self.fetch.piece_bytes = now_s, pieces
        self.asked += tuple(self.fetch.wanted)
        return True

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

    def forget_topics(self, transport: Transport, topics: Topics) -> None:
        """Ends the subscriptions of what was fetched."""
        transport.unsubscribe(*(topics.blob(digest) for digest in self.asked))

    def tidy(self, store: Path) -> None:
        """Keeps what the next round may build upon."""
        prune(store, _useful(self.plan))

    def _header(self, config: AgentConfig, store: Path, outbox: Path) -> dict[str, Any]:
        return {
            "device": config.device,
            "store": str(store.absolute()),
            "outbox": str(outbox.absolute()),
            "memory": str((config.state_dir / MEMORY).absolute()),
            "personal": dict(config.personal),
            "durable": config.durable,
            "path": list(self.path),
            "threads": config.train.threads,
            "fetched_bytes": self.fetched_bytes,
            "data": config.data.to_json(),
        }


def _on_the_way(plan: RoundPlan, store: Path) -> set[str]:
    """Returns what the plan's chain may lead along: the chain, its deltas, and every model that is held."""
    if not plan.chain:
        return set()
    return {plan.chain, *held_models(store), *(ref.digest for ref in older_deltas(plan, store))}


def _useful(plan: RoundPlan) -> set[str]:
    """Returns the digests of the spec, of the blobs, and of the models that the plan leads from or to."""
    models = {digest for ref in plan.blobs for digest in (ref.digest, ref.source, ref.target)}
    return {plan.spec, plan.base, plan.trunk, *models} - {""}
