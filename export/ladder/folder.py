"""The folder of an export: what lies in it belongs to one report, and a file that is not ours is left alone.

A file is ours if it has one of our names and its content says so. One that only has such a name stops the export
before any work is done. The report goes first and comes last: a folder without one is no export.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from wire.errors import BitfleetError, ConfigError, StateError
from wire.frame import Kind, decode_frame
from wire.pieces.assembly import write_whole

__all__ = ["disk", "leave", "prepare"]

_VARIANT = r"(?:float|int8)-(?:[2-8]|centres|mixed)\.onnx"
_NAMES = re.compile(rf"{_VARIANT}|(?:float|int8)\.bundle|golden\.bin|report\.(?:json|md|png)")
_DRAFTS = re.compile(rf"\.(?:{_NAMES.pattern})\.[0-9]+\.tmp")
_ONNX = re.compile(rb"\x08[\x08\x0a\x0d]\x12\x08bitfleet")  # IR version 8, 10 or 13, producer "bitfleet"
_BUNDLE = b"BFNB"
_PNG = b"\x89PNG\r\n\x1a\n"
_PAGE = re.compile(rb"# [a-z0-9-]{1,32}: [0-9]+ files\n")
_READ_BYTES = 1 << 26


def prepare(folder: Path) -> None:
    """Makes the folder; raises ConfigError if a name that the export may need is taken by a file that is not ours."""
    with disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        taken = sorted(path.name for path in _named(folder) if not _is_ours(path))
    if taken:
        raise ConfigError(f"{folder} holds {taken}, which no export left there", remedy="give another --out")


def leave(folder: Path, files: Mapping[str, bytes]) -> None:
    """Leaves these files, and nothing of an earlier export, its report included; the new one is still to be written."""
    with disk(folder):
        for path in sorted(_named(folder), key=lambda path: path.name != "report.json"):
            if _is_ours(path) and path.name not in files:
                path.unlink()
        for path in [path for path in folder.iterdir() if _DRAFTS.fullmatch(path.name)]:
            path.unlink()
        for name, data in files.items():
            write_whole(folder / name, data)


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """Translates what the disk refuses."""
    try:
        yield
    except OSError as exc:
        raise StateError(
            f"{exc.filename or path} cannot be read or written: {exc.strerror or exc}",
            remedy="make room and check who may write there, or give another --out",
        ) from exc


def _named(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if _NAMES.fullmatch(path.name)]


def _is_ours(path: Path) -> bool:
    """Tells whether an export wrote this file, by its content."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        data = file.read(_READ_BYTES)
    if path.name == "golden.bin":
        return _is_golden(data)
    if path.name == "report.json":
        return _is_report(data)
    if path.name == "report.md":
        return bool(_PAGE.match(data))
    if path.suffix == ".png":
        return data.startswith(_PNG) and b"bitfleet export" in data[:256]
    return bool(_ONNX.match(data)) if path.suffix == ".onnx" else data.startswith(_BUNDLE)


def _is_golden(data: bytes) -> bool:
    try:
        decode_frame(data, Kind.GOLDEN)
    except BitfleetError:
        return False
    return True


def _is_report(data: bytes) -> bool:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"schema", "variants", "golden"} <= set(found)
