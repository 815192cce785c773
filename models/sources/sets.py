"""The sets that Bitfleet knows: digits (bundled), fashion and watch (fetched before, see models/fetch.py)."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

import models
from models.dataset import Dataset, Index
from models.fetch import FASHION_SHA256, WATCH_ARRAYS, WATCH_ARRAYS_SHA256, cached, verify
from models.sources.foreign import read_idx
from wire.bits import Bits
from wire.errors import DataError

__all__ = ["SETS", "Stored"]

DIGITS_TEST = 360
"""Digits kept for testing, of 1,797: the first of the order drawn from the stream ("digits", "test")."""

WINDOW, HOP = 100, 50
"""Steps in a window of `watch`, and from one window to the next; at 50 Hz, 2 s and 1 s."""


@dataclass(frozen=True, eq=False)
class Stored:
    """Examples as they lie on disk, smaller than float32: x is divided by `unit` once the examples are chosen."""

    x: npt.NDArray[Any]
    y: Index
    subject: Index | None = None
    unit: int = 1

    def take(self, index: Index) -> Dataset:
        """Returns the examples at these places."""
        x = self.x[index].astype(np.float32)
        x /= np.float32(self.unit)
        subject = None if self.subject is None else self.subject[index]
        return Dataset(x, self.y[index], subject, self.preprocessing)

    @property
    def preprocessing(self) -> str:
        """Returns in words what is done to values as the source has them."""
        return f"float32, values / {self.unit}" if self.unit != 1 else "float32, values as they are"


def _digits(part: str) -> Stored:
    held = _arrays(Path(models.__path__[0]) / "digits" / "digits.npz")
    order = Bits.of("digits", "test").permutation(len(held["y"]))
    index = np.sort(order[:DIGITS_TEST] if part == "test" else order[DIGITS_TEST:])
    return Stored(held["x"][index][:, None], held["y"][index].astype(np.int64), unit=16)


def _fashion(part: str) -> Stored:
    stem = "t10k" if part == "test" else "train"
    x, y = (_idx(cached("fashion") / f"{stem}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    return Stored(x[:, None], y.astype(np.int64), unit=255)


def _watch(part: str) -> Stored:
    """Cuts every recording in two by time: the last fifth is for testing, and no window looks across the cut."""
    file = cached("watch")
    held = _arrays(file)
    verify(b"".join(held[name].tobytes() for name in WATCH_ARRAYS if name in held), WATCH_ARRAYS_SHA256, str(file))
    pieces, rows = [], []
    for at, recording in enumerate(np.split(held["x"], np.cumsum(held["length"])[:-1])):
        cut = len(recording) * 4 // 5
        piece = recording[cut:] if part == "test" else recording[:cut]
        windows = np.lib.stride_tricks.sliding_window_view(piece, WINDOW, axis=0)[::HOP]
        pieces.append(windows)
        rows += [at] * len(windows)
    return Stored(np.concatenate(pieces), held["label"][rows], held["subject"][rows])


def _idx(file: Path) -> npt.NDArray[np.uint8]:
    try:
        packed = file.read_bytes()
    except OSError as exc:
        raise DataError(f"{file} cannot be read: {exc}", remedy="delete its folder and fetch it again") from exc
    verify(packed, FASHION_SHA256[file.name], str(file))
    return read_idx(packed, str(file))


def _arrays(file: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with file.open("rb") as stream, NpzFile(stream, allow_pickle=False) as held:
            return dict(held)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
        raise DataError(f"{file} cannot be read: {exc}", remedy="delete it, then fetch or install it again") from exc


SETS = {"digits": _digits, "fashion": _fashion, "watch": _watch}
"""Each takes "train" or "test"."""
