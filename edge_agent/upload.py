"""One update on its way up: a few pieces in flight, smaller after a cut, and never sent twice where once was enough.

fresh    every piece is due
asked    after a lost link or a silence the coordinator is asked what it lacks, and only that is due
settled  by the coordinator's receipt, nothing else
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edge_agent.kept.outbox import Entry
from wire.messages.reports import Ask, Span
from wire.pieces.chunks import HEADER_BYTES, cut_spans, encode_chunk
from wire.transport import Transport

__all__ = ["Upload"]

_WINDOW = 4
_SMALLEST_BYTES = 1024
_FIRST_WAIT_S = 2.0
_LONGEST_WAIT_S = 60.0


@dataclass(slots=True)
class Upload:
    """The progress of one entry. `spread` gives a number in [0, 1) for the jitter of repeated questions."""

    entry: Entry
    payload_bytes: int
    spread: Callable[[], float]
    due: deque[Span] = field(default_factory=deque)
    flying: dict[int, Span] = field(default_factory=dict)
    silent_since_s: float = 0.0
    wait_s: float = _FIRST_WAIT_S

    def begin(self, now_s: float) -> None:
        """Makes every piece due."""
        self.resume(((0, self.entry.size),), now_s)

    def resume(self, spans: tuple[Span, ...], now_s: float) -> None:
        """Makes just these ranges due."""
        self.flying.clear()
        self.due = deque(cut_spans(spans, max(_SMALLEST_BYTES, self.payload_bytes - HEADER_BYTES)))
        self.silent_since_s, self.wait_s = now_s, _FIRST_WAIT_S

    def cut(self) -> None:
        """Notes that the link broke: what was in flight is unknown, and smaller pieces are tried next."""
        if self.flying:
            self.payload_bytes = max(_SMALLEST_BYTES + HEADER_BYTES, self.payload_bytes // 2)
        self.flying.clear()
        self.due.clear()

    def send(self, transport: Transport, topic: str, now_s: float) -> None:
        """Publishes due pieces up to the window."""
        if len(self.flying) >= _WINDOW:
            return
        with self.entry.path.open("rb") as file:
            while self.due and len(self.flying) < _WINDOW:
                start, end = self.due.popleft()
                file.seek(start)
                piece = encode_chunk(self.entry.digest, self.entry.size, start, file.read(end - start))
                self.flying[transport.publish(topic, piece)] = (start, end)
                self.silent_since_s = now_s

    def sent(self, token: int, now_s: float) -> bool:
        """Notes that the broker took a piece; tells whether it was one of this update."""
        if self.flying.pop(token, None) is None:
            return False
        self.silent_since_s = now_s
        return True

    def unsent(self, token: int, now_s: float) -> bool:
        """Notes that the broker refused a piece: wait and ask, in smaller pieces; tells whether it was ours."""
        if token not in self.flying:
            return False
        self.cut()
        self.silent_since_s = now_s
        return True

    def overdue_s(self, now_s: float) -> float:
        """Returns in how many seconds the coordinator should be asked; zero or less means now."""
        return self.silent_since_s + self.wait_s - now_s

    def question(self, now_s: float) -> Ask:
        """Returns the question what became of this update, and doubles the wait before the next one.

        What is in flight stays so: pieces that take longer than the wait are too large for a link that then breaks.
        """
        self.due.clear()
        self.silent_since_s = now_s
        self.wait_s = min(_LONGEST_WAIT_S, 2 * self.wait_s) * (0.75 + 0.5 * self.spread())
        entry = self.entry
        return Ask("update", entry.digest, entry.run, entry.round, entry.size)
