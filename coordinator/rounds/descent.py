"""What goes down after a round: one snapshot, or a delta to what the devices hold and the ways that lead there.

The devices hold `held`, which the deltas reach exactly; the server's own model may be ahead of it by what the stages
left out, and the next delta is the difference to that model: error feedback on the way down.

A plan names the newest deltas and a snapshot. The older deltas stand in the chain, a blob of its own, as long as all
deltas together are smaller than a snapshot: a device that missed rounds, or a new one that starts from the seed, then
fetches the chain and what it lacks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from coordinator.learning.checkpoint import ServerState
from wire.messages.blob import Downlink, delta_blob, digest_bytes, snapshot_blob
from wire.messages.chain import encode_chain
from wire.messages.plan import BlobRef
from wire.params import Params
from wire.spec import ModelSpec

__all__ = ["chain_of", "descend", "named"]

_MOST_NAMED = 4  # a reference takes about 240 bytes of every plan, and 72 of the chain
_MOST_KEPT = 1024  # a checkpoint's header has room for about 4000 references

Keep = Callable[[str, bytes], None]


def descend(
    model: Params, old: ServerState, spec: ModelSpec, *, down: Downlink, key: Sequence[object], keep: Keep
) -> tuple[Params, tuple[BlobRef, ...]]:
    """Returns the model that devices will hold and all blobs that lead there, oldest first, the snapshot last."""
    if not down.stages:
        ref, data = snapshot_blob(model, spec)
        keep(ref.digest, data)
        return model, (ref,)
    newest, data, reached = delta_blob(model, old.held, spec, down, key)
    snapshot, whole = snapshot_blob(reached, spec)
    keep(newest.digest, data)
    keep(snapshot.digest, whole)
    deltas = _worthwhile([*(ref for ref in old.blobs if ref.source), newest], snapshot.size)
    chain = chain_of((*deltas, snapshot))
    if chain:
        keep(digest_bytes(chain), chain)
    return reached, (*deltas, snapshot)


def named(blobs: Sequence[BlobRef]) -> tuple[BlobRef, ...]:
    """Returns the blobs that a plan names itself."""
    deltas = [ref for ref in blobs if ref.source]
    return (*deltas[-_MOST_NAMED:], *(ref for ref in blobs if not ref.source))


def chain_of(blobs: Sequence[BlobRef]) -> bytes:
    """Returns the chain of the older deltas, or nothing if the plan names all."""
    older = [ref for ref in blobs if ref.source][:-_MOST_NAMED]
    return encode_chain(older) if older else b""


def _worthwhile(deltas: list[BlobRef], most_bytes: int) -> list[BlobRef]:
    """Drops the oldest deltas while all together are no smaller than a snapshot, or too many; the newest stays."""
    deltas = deltas[-_MOST_KEPT:]
    while len(deltas) > 1 and sum(ref.size for ref in deltas) >= most_bytes:
        deltas = deltas[1:]
    return deltas
