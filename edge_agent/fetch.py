"""Fetches what a plan names and the device lacks: the spec and the blobs on the shortest way to the base model.

Files stand under their digest in the store, and get that name by a checked rename. A power cut may still tear one, so
the child checks the digest again before it uses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.gate import disk_failure
from wire.messages.plan import RoundPlan, shortest_path
from wire.messages.reports import Ask
from wire.pieces.assembly import Assembly
from wire.pieces.chunks import Chunk

__all__ = ["Fetch", "held_models", "plan_fetch", "prune"]

_SILENCE_S = 2.0
_LONGEST_SILENCE_S = 60.0
MODEL_SUFFIX = ".model"


@dataclass(slots=True)
class Fetch:
    """What is still on its way for one plan, and the blobs, in order, that lead to its base."""

    store: Path
    path: tuple[str, ...]
    wanted: dict[str, Assembly]
    asked_s: float = 0.0
    wait_s: float = _SILENCE_S
    fetched_bytes: int = field(default=0)

    @property
    def complete(self) -> bool:
        """Tells whether everything is there."""
        return not self.wanted

    def take(self, chunk: Chunk, now_s: float) -> None:
        """Puts a piece where it belongs; a payload whose digest is wrong starts again. Declined if the disk is full."""
        assembly = self.wanted.get(chunk.digest)
        if assembly is None:
            return
        self.asked_s, self.wait_s = now_s, _SILENCE_S
        self.fetched_bytes += len(chunk.data)
        try:
            assembly.put(chunk)
            if assembly.spans.complete and assembly.finish(self.store / chunk.digest, durable=False):
                del self.wanted[chunk.digest]
        except OSError as exc:
            for part in self.wanted.values():
                part.drop()
            raise disk_failure(exc) from exc

    def questions(self, now_s: float) -> list[Ask]:
        """Returns what to ask for now, and waits longer before the next time."""
        self.asked_s, self.wait_s = now_s, min(_LONGEST_SILENCE_S, 2 * self.wait_s)
        return [Ask("blob", digest, spans=part.spans.missing(64)) for digest, part in self.wanted.items()]

    def overdue_s(self, now_s: float) -> float:
        """Returns in how many seconds to ask again; zero or less means now."""
        return self.asked_s + self.wait_s - now_s


def held_models(store: Path) -> list[str]:
    """Returns the digests of the models that the device can start from."""
    return [path.name.removesuffix(MODEL_SUFFIX) for path in store.glob(f"*{MODEL_SUFFIX}")]


def plan_fetch(plan: RoundPlan, store: Path) -> Fetch:
    """Returns what has to be fetched; raises WireError if no way leads to the base."""
    cached = [path.name for path in store.iterdir() if len(path.name) == 64]
    path = shortest_path(plan.blobs, [plan.initial, *held_models(store)], plan.base, cached)
    sizes = {plan.spec: plan.spec_bytes, **{ref.digest: ref.size for ref in path}}
    lacking = {digest: size for digest, size in sizes.items() if digest not in cached}
    parts = {digest: Assembly.open(store, digest, size) for digest, size in lacking.items()}
    wanted = {digest: part for digest, part in parts.items() if not _finished(part, store / digest)}
    return Fetch(store, tuple(ref.digest for ref in path), wanted)


def _finished(part: Assembly, path: Path) -> bool:
    """Finishes a payload whose last piece arrived just before the device was killed; tells whether it did."""
    return part.spans.complete and part.finish(path, durable=False)


def prune(store: Path, keep: Iterable[str]) -> None:
    """Deletes every file of the store but those named: blobs, models, and pieces of them."""
    wanted = set(keep)
    for path in store.iterdir():
        if path.name.split(".")[0] not in wanted:
            path.unlink(missing_ok=True)
