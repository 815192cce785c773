"""The blobs that devices may ask for, and what was asked: questions that come together are answered by one copy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from wire.messages.reports import Span
from wire.pieces.assembly import write_whole
from wire.pieces.chunks import HEADER_BYTES, Spans, cut_spans, encode_chunk

__all__ = ["Library", "Piece"]

_GATHER_S = 0.01
_LARGEST_PIECE = 256 * 1024


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
    askers: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Library:
    """Files under their digest, and the open questions for them."""

    folder: Path
    payload_bytes: int = 64 * 1024
    wants: dict[str, _Want] = field(default_factory=dict)
    due: dict[tuple[str, Span], set[str]] = field(default_factory=dict)

    def put(self, digest: str, data: bytes) -> None:
        """Keeps a blob durably."""
        path = self.folder / digest
        if not path.exists():
            write_whole(path, data)

    def keep_only(self, digests: set[str]) -> None:
        """Deletes every other blob."""
        for path in self.folder.iterdir():
            if path.name not in digests:
                path.unlink(missing_ok=True)

    def ask(self, digest: str, spans: tuple[Span, ...], device: str, now_s: float) -> bool:
        """Notes a question; tells whether there is such a blob with such bytes."""
        path = self.folder / digest
        if not digest or not path.is_file():
            return False
        total = path.stat().st_size
        if not spans or spans[-1][1] > total:
            return False
        want = self.wants.setdefault(digest, _Want(now_s, Spans(total)))
        want.askers.add(device)
        for start, end in spans:
            want.spans.add(start, end)
        return True

    def gather(self, now_s: float) -> None:
        """Turns questions that have waited long enough for company into pieces; one piece serves all who ask."""
        most = min(_LARGEST_PIECE, self.payload_bytes - HEADER_BYTES)
        for digest in [d for d, want in self.wants.items() if now_s - want.since_s >= _GATHER_S]:
            want = self.wants.pop(digest)
            for span in cut_spans(want.spans.held, most):
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
