"""Datasets from a folder of .npz and CSV files, as a device keeps them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

from models.dataset import Dataset, Index, checked
from models.sources.table import read_table
from wire.errors import DataError

__all__ = ["load_folder"]


def load_folder(path: Path, input: Sequence[int] | None = None, outputs: int | None = None) -> Dataset:
    """Returns the examples of all .npz and .csv files in a folder, in order of file name.

    .npz: arrays `x`, `y` and, if wanted, `subject`. CSV: one example a row, the label in the column `label` or else
    in the last one; a first row of names is optional, and a column `subject` is known by its name. Values are taken
    as they are, never scaled. With `input`, an example's values take that shape; with `outputs`, labels end there.
    """
    files = sorted(one for one in path.glob("*") if one.suffix.lower() in _READERS)
    if not files:
        raise DataError(f"{path} holds no .npz or .csv file", remedy="name the folder that the examples are in")
    parts = [_shaped(checked(_READERS[file.suffix.lower()](file), str(file), outputs), file, input) for file in files]
    kinds = [(part.x.shape[1:], part.subject is not None) for part in parts]
    for file, kind in zip(files, kinds, strict=True):
        if kind != kinds[0]:
            raise DataError(
                f"{file} has (shape of an example, subjects) {kind}, {files[0].name} has {kinds[0]}",
                remedy="put examples of one kind in one folder",
            )
    subjects = [part.subject for part in parts if part.subject is not None]
    x, y = np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts])
    return Dataset(x, y, np.concatenate(subjects) if subjects else None)


def _shaped(data: Dataset, file: Path, input: Sequence[int] | None) -> Dataset:
    """Returns the data with examples of shape `input`; only a flat row, as a CSV gives it, is ever reshaped."""
    found = data.x.shape[1:]
    if input is None or found == tuple(input):
        return data
    if len(found) > 1 or found[0] != prod(input):
        raise DataError(f"{file}: examples have the shape {found}", remedy=f"this model takes {tuple(input)}")
    return Dataset(data.x.reshape(-1, *input), data.y, data.subject)


def _npz(file: Path) -> Dataset:
    try:
        with file.open("rb") as stream, NpzFile(stream, allow_pickle=False) as held:
            arrays = {name: held[name] for name in ("x", "y", "subject") if name in held.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
        raise DataError(f"{file} cannot be read: {exc}", remedy="write it with numpy.savez, arrays of numbers") from exc
    missing = [name for name in ("x", "y") if name not in arrays]
    if missing:
        raise DataError(f"{file} has no array {missing[0]!r}", remedy="write it with numpy.savez(file, x=..., y=...)")
    return Dataset(arrays["x"], arrays["y"], arrays.get("subject"))


def _csv(file: Path) -> Dataset:
    table = read_table(file)
    names, width = table.names, len(table.names)
    if width < 2:
        raise DataError(f"{file}: one column", remedy="give every example its values and its label, in columns")
    label = names.index("label") if "label" in names else width - 1
    subject = names.index("subject") if "subject" in names else None
    values = np.delete(table.values, [at for at in (label, subject) if at is not None], axis=1)
    wholes = [None if at is None else _as_whole(file, table.values[:, at]) for at in (label, subject)]
    return Dataset(values.astype(np.float32), wholes[0], wholes[1])  # type: ignore[arg-type]


def _as_whole(file: Path, column: npt.NDArray[np.float64]) -> Index:
    odd = (column != np.floor(column)) | (np.abs(column) > 2**53)
    if odd.any():
        raise DataError(f"{file}: label or subject {column[odd][0]} is not a whole number", remedy="use whole numbers")
    return column.astype(np.int64)


_READERS = {".npz": _npz, ".csv": _csv}
