"""Pieces of a large payload. A piece says where it belongs, so pieces may come in any order, twice, or in any size.

offset  bytes  field
0       32     SHA-256 of the whole
32      8      bytes of the whole
40      8      offset of this piece
48      n      the piece
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from wire.errors import WireError
from wire.messages.reports import Span

__all__ = ["HEADER_BYTES", "Chunk", "Spans", "announced_bytes", "cut_spans", "decode_chunk", "encode_chunk"]

_HEADER = struct.Struct("<32sQQ")
HEADER_BYTES = _HEADER.size


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of the payload named `digest`."""

    digest: str
    total: int
    offset: int
    data: memoryview


def encode_chunk(digest: str, total: int, offset: int, data: bytes | memoryview) -> bytes:
    """Returns the piece with its header."""
    return _HEADER.pack(bytes.fromhex(digest), total, offset) + data


def announced_bytes(payload: bytes) -> int | None:
    """Returns how many bytes in all a piece says that it is of, or None if it is too short to say."""
    return int(_HEADER.unpack_from(payload)[1]) if len(payload) > HEADER_BYTES else None


def decode_chunk(payload: bytes, most_bytes: int) -> Chunk:
    """Returns the piece; raises WireError if it is empty, past its end, or of a whole of more than `most_bytes`."""
    if len(payload) <= HEADER_BYTES:
        raise WireError(f"a piece of {len(payload)} bytes holds no data")
    digest, total, offset = _HEADER.unpack_from(payload)
    data = memoryview(payload)[HEADER_BYTES:]
    if total > most_bytes:
        raise WireError(f"a payload of {total} bytes, at most {most_bytes} are taken", code="E-SIZE")
    if offset + len(data) > total:
        raise WireError(f"a piece at {offset} of {len(data)} bytes reaches past {total}", code="E-SIZE")
    return Chunk(digest.hex(), total, offset, data)


def cut_spans(spans: Iterable[Span], most_bytes: int) -> Iterator[Span]:
    """Yields the ranges cut into pieces of at most `most_bytes`."""
    for start, end in spans:
        for at in range(start, end, most_bytes):
            yield at, min(at + most_bytes, end)


@dataclass(slots=True)
class Spans:
    """Which bytes of `total` are there: sorted ranges that do not touch."""

    total: int
    held: list[Span] = field(default_factory=list)

    def add(self, start: int, end: int) -> None:
        """Notes that [start, end) is there."""
        first = bisect_left(self.held, start, key=lambda span: span[1])
        past = bisect_right(self.held, end, key=lambda span: span[0])
        touching = self.held[first:past]
        if touching:
            start, end = min(start, touching[0][0]), max(end, touching[-1][1])
        self.held[first:past] = [(start, end)]

    def remove(self, start: int, end: int) -> None:
        """Notes that nothing of [start, end) is there."""
        first = bisect_right(self.held, start, key=lambda span: span[1])
        past = bisect_left(self.held, end, key=lambda span: span[0])
        edges = [(low, min(high, start)) for low, high in self.held[first:past]]
        edges += [(max(low, end), high) for low, high in self.held[first:past]]
        self.held[first:past] = [(low, high) for low, high in edges if low < high]

    def touches(self, start: int, end: int) -> bool:
        """Tells whether any byte of [start, end) is there."""
        at = bisect_left(self.held, end, key=lambda span: span[0]) - 1
        return at >= 0 and self.held[at][1] > start

    def covers(self, start: int, end: int) -> bool:
        """Tells whether all of [start, end) is there."""
        at = bisect_right(self.held, start, key=lambda span: span[0]) - 1
        return at >= 0 and end <= self.held[at][1]

    def missing(self, most: int = 1024) -> tuple[Span, ...]:
        """Returns the first `most` ranges that are not there."""
        edges = [0, *(edge for span in self.held for edge in span), self.total]
        gaps = [(edges[at], edges[at + 1]) for at in range(0, len(edges), 2)]
        return tuple(gap for gap in gaps if gap[0] < gap[1])[:most]

    @property
    def complete(self) -> bool:
        """Tells whether every byte is there."""
        return self.held == [(0, self.total)] or not self.total
