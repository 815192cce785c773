"""The blobs that devices may ask for, and what was asked: questions that come together are answered by one copy."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wire.messages.reports import Span
from wire.pieces.assembly import write_whole
from wire.pieces.chunks import HEADER_BYTES, Spans, cut_spans, encode_chunk

__all__ = ["Library", "Piece"]

_GATHER_S = 0.01
_LARGEST_PIECE = 256 * 1024
_SMALLEST_PIECE = 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece to be published, and who asked for it."""

    digest: str
    payload: bytes
    askers: tuple[str, ...]


@dataclass(slots=True)
class _Want:
    since_s: float
    spans: Spans
    piece_bytes: int
    askers: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Library:
    """Files under their digest, and the open questions for them."""

    folder: Path
    payload_bytes: int = 64 * 1024
    wants: dict[str, _Want] = field(default_factory=dict)
    due: dict[tuple[str, Span], set[str]] = field(default_factory=dict)
    durable: bool = True

    def put(self, digest: str, data: bytes) -> None:
        """Keeps a blob."""
        path = self.folder / digest
        if not path.exists():
            write_whole(path, data, self.durable)

    def keep_only(self, digests: set[str]) -> None:
        """Deletes every other blob."""
        for path in self.folder.iterdir():
            if path.name not in digests:
                path.unlink(missing_ok=True)

    def ask(self, digest: str, spans: tuple[Span, ...], device: str, now_s: float, piece_bytes: int = 0) -> bool:
        """Notes a question; tells whether there is such a blob with such bytes. What is due is not made due again.

        `piece_bytes` is the most that a piece shall hold, 0 for any size: after a broken link a device asks for less.
        """
        path = self.folder / digest
        if not digest or not path.is_file():
            return False
        total = path.stat().st_size
        if not spans or spans[-1][1] > total:
            return False
        most = max(_SMALLEST_PIECE, piece_bytes) if piece_bytes else _LARGEST_PIECE
        lacking = list(_without(spans, self._share(digest, Spans(total), spans, device, most).held))
        if lacking:
            want = self.wants.setdefault(digest, _Want(now_s, Spans(total), most))
            want.askers.add(device)
            want.piece_bytes = min(want.piece_bytes, most)
            for start, end in lacking:
                want.spans.add(start, end)
        return True

    def gather(self, now_s: float) -> None:
        """Turns questions that have waited long enough for company into pieces; one piece serves all who ask."""
        largest = min(_LARGEST_PIECE, self.payload_bytes - HEADER_BYTES)
        for digest in [d for d, want in self.wants.items() if now_s - want.since_s >= _GATHER_S]:
            want = self.wants.pop(digest)
            for span in cut_spans(want.spans.held, min(largest, want.piece_bytes)):
                self.due.setdefault((digest, span), set()).update(want.askers)

    def next_piece(self) -> Piece | None:
        """Returns the next piece to publish."""
        while self.due:
            digest, (start, end) = key = next(iter(self.due))
            askers = tuple(sorted(self.due.pop(key)))
            path = self.folder / digest
            if path.is_file():
                with path.open("rb") as file:
                    file.seek(start)
                    data = file.read(end - start)
                return Piece(digest, encode_chunk(digest, path.stat().st_size, start, data), askers)
        return None

    def due_s(self, now_s: float) -> float | None:
        """Returns in how many seconds `gather` has something to do, or None."""
        waits = [want.since_s + _GATHER_S - now_s for want in self.wants.values()]
        return max(0.0, min(waits)) if waits else None

    def _share(self, digest: str, shared: Spans, spans: tuple[Span, ...], device: str, most: int) -> Spans:
        """Adds a device to the askers of due pieces that it wants; adds to `shared` and returns what these hold.

        Pieces that were due to this device alone and are too large for it now are not sent.
        """
        for (name, (start, end)), askers in list(self.due.items()):
            if name != digest or not _touch(spans, start, end):
                continue
            if end - start <= most:
                askers.add(device)
                shared.add(start, end)
            elif askers == {device}:
                del self.due[digest, (start, end)]
        return shared


def _touch(spans: Sequence[Span], start: int, end: int) -> bool:
    """Tells whether any byte of [start, end) is in the sorted `spans`."""
    at = bisect_left(spans, (end, 0)) - 1
    return at >= 0 and spans[at][1] > start


def _without(spans: Sequence[Span], held: Sequence[Span]) -> Iterator[Span]:
    """Yields what of the sorted `spans` is not in the sorted `held`."""
    at = 0
    for first, end in spans:
        start = first
        while at < len(held) and held[at][1] <= start:
            at += 1
        while at < len(held) and held[at][0] < end:
            low, high = held[at]
            if start < low:
                yield start, low
            start = high
            if high > end:
                break
            at += 1
        if start < end:
            yield start, end
