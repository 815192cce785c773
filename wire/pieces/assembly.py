"""Builds a payload from pieces in a file, so that neither memory nor a cut link limits its size.

The file NAME.part holds the bytes. While the pieces come in order, its size says what is there; from the first one that
leaves a gap on, NAME.spans holds one line "start end" for each piece. Both may be torn by a power cut: the payload
counts only when its SHA-256 is right, and otherwise starts again from nothing.

Of a portion only the first bytes of a payload are wanted. Its digest cannot tell whether they are right, so that
whoever asked for them has to find out; the file stays NAME.part, and a longer portion goes on where it ends.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from wire.errors import WireError
from wire.pieces.chunks import Chunk, Spans

__all__ = ["Assembly", "digest_file", "link_whole", "make_folder", "move_whole", "sweep_drafts", "write_whole"]

_READ_BYTES = 1 << 16
_NOTE = re.compile(r"([0-9]{1,15}) ([0-9]{1,15})")


def write_whole(path: Path, data: bytes, durable: bool = True) -> None:
    """Leaves `path` with exactly `data`, or as it was: write, fsync, rename, fsync the folder.

    Where only a power cut could tear it and that does not matter, `durable` = False spares the disk.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)  # on a full disk it would only make matters worse
        raise
    if durable:
        _sync_folder(path.parent)


def digest_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hex, whatever its size."""
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            whole.update(piece)
    return whole.hexdigest()


def sweep_drafts(folder: Path) -> None:
    """Deletes what a killed `write_whole` left unfinished in a folder."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def make_folder(folder: Path, durable: bool = True) -> None:
    """Makes a folder, and those above it, if they are not there; `durable` forces their names to the disk."""
    if folder.is_dir():
        return
    make_folder(folder.parent, durable)
    folder.mkdir(exist_ok=True)
    if durable:
        _sync_folder(folder.parent)


def move_whole(source: Path, target: Path, durable: bool = True) -> None:
    """Renames a file that is on the disk already, durably or not."""
    source.replace(target)
    if durable:
        _sync_folder(target.parent)


def link_whole(source: Path, target: Path, durable: bool = True) -> None:
    """Gives a file a second name, or copies it where the file system has no such thing, and forces it to the disk."""
    try:
        os.link(source, target)
    except OSError:
        draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            shutil.copyfile(source, draft)
            draft.replace(target)
        except OSError:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
    if durable:
        with target.open("rb") as file:
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(slots=True)
class Assembly:
    """One payload under way, or the first `total` bytes of one: a portion.

    `folder` must exist; files are called by the digest, or by `prefix` and it.
    """

    folder: Path
    digest: str
    total: int
    spans: Spans
    prefix: str = ""
    noted: bool = False
    portion: bool = False

    @classmethod
    def open(cls, folder: Path, digest: str, total: int, prefix: str = "", *, portion: bool = False) -> Assembly:
        """Returns the assembly, with what an earlier process left of it."""
        assembly = cls(folder, digest, total, Spans(total), prefix, portion=portion)
        assembly._recall()
        return assembly

    @property
    def part(self) -> Path:
        """Returns the file that holds the bytes."""
        return self.folder / f"{self.prefix}{self.digest}.part"

    @property
    def notes(self) -> Path:
        """Returns the file that holds the ranges, if there is more than one."""
        return self.folder / f"{self.prefix}{self.digest}.spans"

    def fits(self, chunk: Chunk) -> bool:
        """Tells whether a piece can be of this payload, by the size in all that it says."""
        return chunk.total >= self.total if self.portion else chunk.total == self.total

    def within(self, chunk: Chunk) -> Chunk | None:
        """Returns what of a piece belongs here, or None. Of a portion others may have asked for other bytes."""
        if not self.fits(chunk):
            return None
        if not self.portion:
            return chunk
        data = chunk.data[: max(0, self.total - chunk.offset)]
        if not len(data) or self.spans.covers(chunk.offset, chunk.offset + len(data)):
            return None
        return replace(chunk, total=self.total, data=data)

    def put(self, chunk: Chunk) -> None:
        """Writes a piece, all of which belongs here, where it belongs."""
        if chunk.total != self.total:
            raise WireError(f"a piece says {chunk.total} bytes in all, the first one said {self.total}", code="E-SIZE")
        if self.spans.covers(chunk.offset, chunk.offset + len(chunk.data)):
            return  # else a sender that repeats itself makes the notes grow without end
        if not self.noted and chunk.offset > (self.spans.held[0][1] if self.spans.held else 0):
            self._note(*self.spans.held)
            self.noted = True
        with self.part.open("r+b" if self.spans.held else "w+b") as file:
            file.seek(chunk.offset)
            file.write(chunk.data)
        if self.noted:
            self._note((chunk.offset, chunk.offset + len(chunk.data)))
        self.spans.add(chunk.offset, chunk.offset + len(chunk.data))

    def finish(self, path: Path, durable: bool = True) -> bool:
        """Moves the whole payload to `path` if its digest is right; else drops it and returns False.

        Where losing it in a power cut costs no more than fetching it again, `durable` = False spares the disk.
        A portion stays where it is, unchecked.
        """
        if self.portion:
            return True
        if digest_file(self.part) != self.digest:
            self.drop()
            return False
        if not durable:
            self.part.replace(path)
            self.notes.unlink(missing_ok=True)
            return True
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        self.part.replace(path)
        self.notes.unlink(missing_ok=True)
        _sync_folder(path.parent)
        return True

    def drop(self) -> None:
        """Forgets everything."""
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)
        self.spans, self.noted = Spans(self.total), False

    def _note(self, *spans: tuple[int, int]) -> None:
        with self.notes.open("a", encoding="ascii") as file:
            file.writelines(f"{start} {end}\n" for start, end in spans)

    def _recall(self) -> None:
        size = self.part.stat().st_size if self.part.exists() else 0
        self.noted = self.notes.exists()
        if not size or (size > self.total and not self.portion):
            self.drop()
        elif not self.noted:
            self.spans.add(0, min(size, self.total))
        else:
            for line in self.notes.read_text("ascii", errors="replace").splitlines():
                if edges := _NOTE.fullmatch(line):
                    start, end = int(edges[1]), int(edges[2])
                    if start < end <= size and start < self.total:
                        self.spans.add(start, min(end, self.total))
            if not self.spans.held:
                self.drop()  # else the file would be begun anew beside notes that speak of the old one
