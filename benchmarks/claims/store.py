"""The stored results of trials: for each trial and seed one JSON file, written whole or not at all, and a lock."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.claims.trial import Trial, is_of

__all__ = ["RESULTS", "Store"]

RESULTS = Path(__file__).parent.parent / "results" / "claims"


@dataclass(frozen=True, slots=True)
class Store:
    """A folder of records."""

    folder: Path = RESULTS

    def path(self, trial: Trial, seed: int) -> Path:
        """Returns where the record of a trial lies."""
        return self.folder / f"{trial.name}.{seed}.json"

    def read(self, trial: Trial, seed: int) -> dict[str, Any] | None:
        """Returns the record of a trial, or None if there is none that was made with its settings."""
        try:
            record: dict[str, Any] = json.loads(self.path(trial, seed).read_text())
        except FileNotFoundError:
            return None
        return record if is_of(record, trial, seed) else None

    def write(self, trial: Trial, seed: int, record: Mapping[str, Any]) -> None:
        """Puts a record in its place at once: whoever reads meanwhile sees the old one or the new one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(trial, seed)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        with draft.open("w") as file:
            file.write(_text(record))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    @contextmanager
    def lock(self, trial: Trial, seed: int) -> Iterator[int]:
        """Yields 0 while this process alone may run the trial, or the id of the process that has it (-1: unknown).

        The lock ends with its process, however that dies.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f".{trial.name}.{seed}.lock"
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if not _taken(file, path):
                yield _holder(file)
                return
            os.ftruncate(file, 0)
            os.pwrite(file, str(os.getpid()).encode(), 0)
            try:
                yield 0
            finally:
                path.unlink(missing_ok=True)
        finally:
            os.close(file)


def _taken(file: int, path: Path) -> bool:
    """Tells whether the lock is ours; a file that its holder has just removed locks nobody out: it does not count."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return path.exists() and path.stat().st_ino == os.fstat(file).st_ino


def _holder(file: int) -> int:
    text = os.pread(file, 32, 0).decode()
    return int(text) if text.isdecimal() else -1


def _text(record: Mapping[str, Any]) -> str:
    """Returns JSON with one line for each top-level entry and each figure: small, and a diff can be read."""
    parts = []
    for name, value in record.items():
        if name == "figures":
            inner = ",\n".join(f"  {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items())
            parts.append(f' "figures": {{\n{inner}\n }}')
        else:
            parts.append(f" {json.dumps(name)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
