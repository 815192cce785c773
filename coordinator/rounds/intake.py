"""Pieces of updates on their way in: one unfinished update a device, in files, so memory does not grow with devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wire.errors import WireError
from wire.messages.reports import Ask, Span
from wire.pieces.assembly import Assembly
from wire.pieces.chunks import Chunk

__all__ = ["Intake"]

_MOST_SPANS = 64
_MOST_RANGES = 4096  # pieces come in order but for those of one window: many gaps are made on purpose


@dataclass(slots=True)
class Intake:
    """`folder` holds what is unfinished, and for a moment what is finished and not yet judged: DEVICE.DIGEST.*.

    `left` are the files that an earlier process left, by device.
    """

    folder: Path
    parts: dict[str, Assembly] = field(default_factory=dict)
    durable: bool = True
    left: dict[str, list[Path]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for path in self.folder.iterdir():
            self.left.setdefault(path.name.split(".")[0], []).append(path)

    def take(self, device: str, chunk: Chunk) -> Path | None:
        """Puts a piece where it belongs; returns the whole update's file when nothing is missing and it is right."""
        part = self._part(device, chunk.digest, chunk.total)
        part.put(chunk)
        if len(part.spans.held) > _MOST_RANGES:
            part.drop()
            raise WireError(f"pieces with more than {_MOST_RANGES} gaps between them", code="E-SIZE")
        if not part.spans.complete:
            return None
        del self.parts[device]
        whole = self.folder / f"{device}.{chunk.digest}.whole"
        return whole if part.finish(whole, self.durable) else None

    def missing(self, device: str, ask: Ask) -> tuple[Span, ...]:
        """Returns the ranges of an update that have not arrived."""
        return self._part(device, ask.digest, ask.total).spans.missing(_MOST_SPANS)

    def gathers(self, device: str) -> bool:
        """Tells whether pieces of an update of the device are here."""
        part = self.parts.get(device)
        return bool(part.spans.held) if part else any(path.suffix == ".part" for path in self.left.get(device, ()))

    def forget(self, device: str) -> None:
        """Deletes what there is of a device's unfinished update."""
        if part := self.parts.pop(device, None):
            part.drop()
        for path in self.left.pop(device, ()):
            path.unlink(missing_ok=True)

    def keep_only(self, welcome: Callable[[str], bool]) -> None:
        """Forgets the pieces of all devices that are not welcome."""
        for device in [name for name in (*self.parts, *self.left) if not welcome(name)]:
            self.forget(device)

    def _part(self, device: str, digest: str, total: int) -> Assembly:
        part = self.parts.get(device)
        if part and (part.digest, part.total) == (digest, total):
            return part
        if part:
            part.drop()
        for path in self.left.pop(device, ()):
            if path.name.split(".")[1] != digest:
                path.unlink(missing_ok=True)
        self.parts[device] = Assembly.open(self.folder, digest, total, f"{device}.")
        return self.parts[device]
