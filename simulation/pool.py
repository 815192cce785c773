"""One copy of the files that many virtual devices hold: their stores link into a folder of files named by digest.

Every device fetches its own copy first, as a real one does, and the bytes count; only then is the copy replaced.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Pool"]

_NAMED = re.compile(r"[0-9a-f]{64}(\.model)?")


@dataclass(slots=True)
class Pool:
    """`known` are the files of the pool, so that none is looked for twice."""

    folder: Path
    known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.known = {path.name for path in self.folder.iterdir()}

    def share(self, store: Path) -> None:
        """Replaces the whole files of a store by links; where no more links can be made, the copy stays."""
        for entry in [*os.scandir(store)]:
            if not _NAMED.fullmatch(entry.name) or entry.stat().st_nlink > 1:
                continue
            try:
                self._link(Path(entry.path))
            except OSError:
                self.known.discard(entry.name)

    def sweep(self) -> None:
        """Deletes the files that no device holds any more."""
        for entry in [*os.scandir(self.folder)]:
            if entry.stat().st_nlink == 1:
                Path(entry.path).unlink(missing_ok=True)
                self.known.discard(entry.name)

    def _link(self, path: Path) -> None:
        common = self.folder / path.name
        if path.name not in self.known:
            common.unlink(missing_ok=True)
            os.link(path, common)
            self.known.add(path.name)
            return
        draft = path.with_name(f".{path.name}.tmp")
        os.link(common, draft)
        draft.replace(path)
