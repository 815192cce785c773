"""The blobs that devices may ask for, and what was asked: questions that come together are answered by one copy."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from coordinator.state.awaited import Awaited
from wire.messages.reports import Span
from wire.pieces.assembly import write_whole
from wire.pieces.chunks import HEADER_BYTES, encode_chunk

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
    askers: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Library:
    """Files under their digest, and the open questions for them.

    `awaited` is what is due of each blob, and to whom. `wants` are blobs whose new askers wait for company, `due` the
    devices that do not, in their turns, each with the blobs that it asked for, in order.
    """

    folder: Path
    payload_bytes: int = 64 * 1024
    awaited: dict[str, Awaited] = field(default_factory=dict)
    wants: dict[str, _Want] = field(default_factory=dict)
    due: dict[str, dict[str, None]] = field(default_factory=dict)
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
        How far that is heeded says `Awaited`.
        """
        path = self.folder / digest
        if not digest or not path.is_file():
            return False
        total = path.stat().st_size
        if not spans or spans[-1][1] > total:
            return False
        if self.awaited.setdefault(digest, Awaited(total)).add(device, spans, piece_bytes):
            self.wants.setdefault(digest, _Want(now_s)).askers.append(device)
        return True

    def gather(self, now_s: float) -> None:
        """Makes due what has waited long enough for company; one piece serves all who wait for it."""
        while self.wants:
            digest, want = next(iter(self.wants.items()))  # the first one waits longest
            if now_s - want.since_s < _GATHER_S:
                return
            del self.wants[digest]
            for device in want.askers:
                self.due.setdefault(device, {})[digest] = None

    def next_piece(self) -> Piece | None:
        """Returns the next piece to publish. Devices take turns, so that none waits for all that another asked for."""
        while self.due:
            device = next(iter(self.due))
            digests = self.due.pop(device)
            digest = next(iter(digests))
            piece = self._cut(digest, device)
            if piece is None:  # others had it sent, or the blob went
                del digests[digest]
            if digests:
                self.due[device] = digests
            if piece is not None:
                return piece
        return None

    def due_s(self, now_s: float) -> float | None:
        """Returns in how many seconds `gather` has something to do, or None."""
        first = next(iter(self.wants.values()), None)
        return None if first is None else max(0.0, first.since_s + _GATHER_S - now_s)

    def _cut(self, digest: str, device: str) -> Piece | None:
        """Returns the next piece of a blob for a device, or None if it waits for nothing of it any more."""
        awaited = self.awaited.get(digest)
        if awaited is None or device not in awaited.waits:
            return None
        (start, end), askers = awaited.cut(device, min(_LARGEST_PIECE, self.payload_bytes - HEADER_BYTES))
        if not awaited.waits:
            del self.awaited[digest]
        try:
            with (self.folder / digest).open("rb") as file:
                file.seek(start)
                data = file.read(end - start)
        except FileNotFoundError:
            self.awaited.pop(digest, None)
            return None
        return Piece(digest, encode_chunk(digest, awaited.total, start, data), askers)
