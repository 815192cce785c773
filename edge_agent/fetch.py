"""Fetches what a plan names and the device lacks: the spec and the blobs on the shortest way to the base model.

Files stand under their digest in the store, and get that name by a checked rename. A power cut may still tear one, so
the child checks the digest again before it uses it.

fresh    all that is missing is asked for, once over a link
asked    it may be long on its way: after a silence only a few bytes are asked for again. Pieces of a blob keep their
         order, so if those bytes come before what was asked for earlier, that is lost, and asked for again
cut      what was on its way is lost with the link, and the next pieces shall be smaller

Of a bundle a portion is fetched: its first bytes. They stay a part file; what is cut from them is checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from edge_agent.gate import disk_failure
from wire.errors import WireError
from wire.events import log_event
from wire.messages.chain import decode_chain
from wire.messages.plan import BlobRef, RoundPlan, shortest_path
from wire.messages.reports import Ask, Span, encode_ask
from wire.pieces.assembly import Assembly
from wire.pieces.chunks import Chunk
from wire.topics import Topics
from wire.transport import Transport

__all__ = ["Fetch", "ask_for", "fetch_blobs", "held_models", "older_deltas", "plan_fetch", "prune"]

_SILENCE_S = 2.0
_LONGEST_SILENCE_S = 60.0
_SILENT_GAPS = 4  # so many times as long as the last piece took may the next one take
_USUAL_BYTES = 64 * 1024
_SMALLEST_BYTES = 1024
_PROBE_BYTES = 512  # smaller than any piece: its answer is known by its size
_MOST_ODD = 8
MODEL_SUFFIX = ".model"


@dataclass(slots=True)
class Fetch:
    """What is still on its way for one plan, and the blobs, in order, that lead to its base.

    `asked` are the digests that were asked for over this link, `probes` the few bytes of them asked for again.
    `follows` says that the chain comes first, and the way is looked for again with it.
    `heard_s` is when the last piece came; `piece_bytes` the most that one shall hold, 0 for any size. `odd` counts
    pieces one after the other that say another size of their payload than it should have.
    """

    store: Path
    path: tuple[str, ...]
    wanted: dict[str, Assembly]
    asked_s: float = 0.0
    wait_s: float = _SILENCE_S
    fetched_bytes: int = field(default=0)
    follows: bool = False
    piece_bytes: int = 0
    heard_s: float | None = None
    asked: set[str] = field(default_factory=set)
    probes: dict[str, Span] = field(default_factory=dict)
    odd: int = 0

    @property
    def complete(self) -> bool:
        """Tells whether everything is there."""
        return not self.wanted

    def take(self, chunk: Chunk, now_s: float) -> None:
        """Puts a piece where it belongs; a payload whose digest is wrong starts again. Declined if the disk is full.

        A piece of a payload of another size is dropped; WireError (E-BLOB) if nothing else comes.
        """
        assembly = self.wanted.get(chunk.digest)
        if assembly is None:
            return
        self._count_odd(chunk, assembly)
        piece = assembly.within(chunk)
        if piece is None:
            return
        chunk = piece
        self._heard(now_s)
        self.fetched_bytes += len(chunk.data)
        span = chunk.offset, chunk.offset + len(chunk.data)
        overtaken = self.probes.get(chunk.digest) == span and not assembly.spans.covers(*span)
        try:
            assembly.put(chunk)
            if assembly.spans.complete and assembly.finish(self.store / chunk.digest, durable=False):
                del self.wanted[chunk.digest]
            elif overtaken or not assembly.spans.held:
                self._ask_anew(chunk.digest)
        except OSError as exc:
            with suppress(OSError):  # a card that has become read-only lets nothing go, either
                for part in self.wanted.values():
                    part.drop()
            raise disk_failure(exc) from exc

    def questions(self, now_s: float) -> list[Ask]:
        """Returns what to ask for now, and waits longer before the next time.

        If something is to be asked for anew, only that: a thousand lost blobs must not make a million questions.
        """
        self.asked_s, self.wait_s = now_s, min(_LONGEST_SILENCE_S, max(_SILENCE_S, 2 * self.wait_s))
        self.heard_s = now_s if self.heard_s is None else self.heard_s
        anew = [digest for digest in self.wanted if digest not in self.asked]  # the others are on their way
        return [
            Ask("blob", digest, spans=self._spans(digest, self.wanted[digest]), piece_bytes=self.piece_bytes)
            for digest in anew or self.wanted
        ]

    def cut(self) -> None:
        """Notes that the link broke: what was on its way is lost, and smaller pieces are tried next."""
        if self.asked:
            self.piece_bytes = max(_SMALLEST_BYTES, (self.piece_bytes or _USUAL_BYTES) // 2)
        self.asked.clear()
        self.probes.clear()
        self.heard_s, self.wait_s = None, _SILENCE_S

    def overdue_s(self, now_s: float) -> float:
        """Returns in how many seconds to ask again; zero or less means now."""
        return self.asked_s + self.wait_s - now_s

    def _count_odd(self, chunk: Chunk, assembly: Assembly) -> None:
        self.odd = 0 if assembly.fits(chunk) else self.odd + 1
        if self.odd:
            log_event("odd-piece", digest=chunk.digest[:12], total=chunk.total, expected=assembly.total)
        if self.odd > _MOST_ODD:
            raise WireError(
                f"blob {chunk.digest[:12]} is a payload of {chunk.total} bytes, {assembly.total} of it are wanted",
                code="E-BLOB",
                remedy="publish it again",
            )

    def _heard(self, now_s: float) -> None:
        """Waits for the next piece as long as this one took, and some more."""
        took_s = now_s - self.heard_s if self.heard_s is not None else 0.0
        self.asked_s = self.heard_s = now_s
        self.wait_s = min(_LONGEST_SILENCE_S, max(_SILENCE_S, _SILENT_GAPS * took_s))

    def _ask_anew(self, digest: str) -> None:
        self.asked.discard(digest)
        self.wait_s = 0.0

    def _spans(self, digest: str, part: Assembly) -> tuple[Span, ...]:
        """Returns all that is missing of a payload, or of one that was asked for only the start of the largest gap."""
        missing = part.spans.missing(64)
        if digest not in self.asked:
            self.asked.add(digest)
            self.probes.pop(digest, None)
            return missing
        start, end = max(missing, key=lambda span: span[1] - span[0])
        self.probes[digest] = start, min(end, start + _PROBE_BYTES)
        return (self.probes[digest],)


def ask_for(fetch: Fetch, transport: Transport, topics: Topics, device: str, now_s: float) -> None:
    """Subscribes to what is missing, and asks the coordinator for it."""
    transport.subscribe(*(topics.blob(digest) for digest in fetch.wanted))
    for ask in fetch.questions(now_s):
        transport.publish(topics.device(device, "ask"), encode_ask(ask))


def held_models(store: Path) -> list[str]:
    """Returns the digests of the models that the device can start from."""
    return [path.name.removesuffix(MODEL_SUFFIX) for path in store.glob(f"*{MODEL_SUFFIX}")]


def plan_fetch(plan: RoundPlan, store: Path) -> Fetch:
    """Returns what has to be fetched; raises WireError if no way leads to the base.

    Where only a snapshot would lead there, the chain of older deltas is fetched first: they may be fewer bytes.
    """
    cached = [path.name for path in store.iterdir() if len(path.name) == 64]
    known = older_deltas(plan, store)
    path = shortest_path((*plan.blobs, *known), [plan.initial, *held_models(store)], plan.base, cached)
    look = bool(plan.chain) and not known and any(not ref.source and ref.digest not in cached for ref in path)
    sizes = {plan.spec: plan.spec_bytes, plan.trunk: plan.trunk_bytes}
    sizes |= {plan.chain: plan.chain_bytes} if look else {ref.digest: ref.size for ref in path}
    fetch = fetch_blobs(store, {digest: size for digest, size in sizes.items() if digest and digest not in cached})
    fetch.path, fetch.follows = tuple(ref.digest for ref in path), look
    return fetch


def fetch_blobs(store: Path, sizes: Mapping[str, int], portions: Mapping[str, int] | None = None) -> Fetch:
    """Returns the fetch of blobs by digest and size, with what an earlier process left of them.

    Of the blobs in `portions` only so many bytes are wanted, from the first on.
    """
    lacking = {digest: size for digest, size in sizes.items() if not (store / digest).exists()}
    parts = {digest: Assembly.open(store, digest, size) for digest, size in lacking.items()}
    for digest, size in (portions or {}).items():
        parts[digest] = Assembly.open(store, digest, size, portion=True)
    return Fetch(store, (), {digest: part for digest, part in parts.items() if not _finished(part, store / digest)})


def older_deltas(plan: RoundPlan, store: Path) -> tuple[BlobRef, ...]:
    """Returns the deltas of the plan's chain, or none if it is not there, or not what its name says."""
    path = store / plan.chain
    if not plan.chain or not path.is_file():
        return ()
    data = path.read_bytes()
    if sha256(data).hexdigest() != path.name:
        path.unlink(missing_ok=True)
        return ()
    return decode_chain(data)


def _finished(part: Assembly, path: Path) -> bool:
    """Finishes a payload whose last piece arrived before the device was killed; tells whether it did."""
    return part.spans.complete and part.finish(path, durable=False)


def prune(store: Path, keep: Iterable[str]) -> None:
    """Deletes every file of the store but those named: blobs, models, and pieces of them."""
    wanted = set(keep)
    for path in store.iterdir():
        if path.name.split(".")[0] not in wanted:
            path.unlink(missing_ok=True)
