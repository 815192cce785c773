"""Who waits for which bytes of one blob, and the pieces that are cut from that, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from wire.messages.reports import Span
from wire.pieces.chunks import Spans

__all__ = ["Awaited"]

_SMALLEST_PIECE = 1024
_MOST_PIECES = 4096
_LEAST_SHARED = 16 * 1024
_MOST_SPANS = 1024


@dataclass(slots=True)
class _Wait:
    spans: Spans
    most: int


@dataclass(slots=True)
class Awaited:
    """The bytes of a blob of `total` bytes that each device in `waits` waits for.

    A byte is due to a device once, however often it asks. An answer to a question costs what its own ranges cost,
    whoever else waits: nothing is cut before it is sent.
    """

    total: int
    waits: dict[str, _Wait] = field(default_factory=dict)

    def add(self, device: str, spans: Sequence[Span], piece_bytes: int) -> bool:
        """Adds what a device asks for, in pieces of `piece_bytes` at most, 0 for any; tells whether it is new here.

        No device has more than 1,024 ranges due: what is over it asks for again.
        """
        new = device not in self.waits
        wait = self.waits.setdefault(device, _Wait(Spans(self.total), 0))
        wait.most = max(_SMALLEST_PIECE, -(-self.total // _MOST_PIECES), piece_bytes) if piece_bytes else self.total
        for start, end in spans:
            if len(wait.spans.held) >= _MOST_SPANS:
                break
            wait.spans.add(start, end)
        return new

    def cut(self, device: str, largest: int) -> tuple[Span, tuple[str, ...]]:
        """Takes off the first bytes that a device waits for; returns them, and everybody who waits for some of them.

        Small pieces are for a device that is alone: one bad link must not cut a blob to shreds for all others.
        """
        wait = self.waits[device]
        start, end = wait.spans.held[0]
        past = min(end, start + min(largest, wait.most))
        mosts = [self.waits[name].most for name in self._askers(start, past)]
        if len(mosts) > 1:
            past = min(end, start + min(largest, max(_LEAST_SHARED, min(mosts))))
        askers = self._askers(start, past)
        for name in askers:
            self.waits[name].spans.remove(start, past)
            if not self.waits[name].spans.held:
                del self.waits[name]
        return (start, past), askers

    def _askers(self, start: int, end: int) -> tuple[str, ...]:
        return tuple(sorted(name for name, wait in self.waits.items() if wait.spans.touches(start, end)))
