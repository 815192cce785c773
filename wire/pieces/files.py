"""Folders and files that a person names: what the system says of them becomes an error that names them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from wire.errors import ConfigError, StateError, said_by

__all__ = ["check_json", "leave_json", "make_folder", "usable"]


@contextmanager
def usable(path: Path, option: str) -> Iterator[None]:
    """Raises StateError, naming `path` and what to do, where the system lets nobody do what is done within."""
    try:
        yield
    except OSError as exc:
        remedy = f"name a folder of your own with {option}, or see whose this is and whether it may be written"
        raise StateError(f"{path} cannot be used: {said_by(exc)}", remedy=remedy) from exc


def make_folder(folder: Path, option: str) -> None:
    """Makes a folder that is not there yet; `option` is what a person named it with."""
    with usable(folder, option):
        folder.mkdir(parents=True, exist_ok=True)


def check_json(path: Path | None) -> None:
    """Raises ConfigError if `--json FILE` cannot be written in the end: what leads there shall not be for nothing."""
    if path is None:
        return
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"--json {path}: there is no folder {folder}", remedy="make it first")
    if path.is_dir():
        raise ConfigError(f"--json {path} is a folder", remedy="name a file")


def leave_json(path: Path | None, facts: Any) -> None:
    """Writes figures where `--json FILE` says, if it was given."""
    if path is None:
        return
    try:
        path.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    except OSError as exc:
        remedy = "name a file that may be written; what was made is there"
        raise StateError(f"--json {path} cannot be written: {said_by(exc)}", remedy=remedy) from exc
