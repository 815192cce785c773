"""A CSV file as a table of numbers, as programs and spreadsheets write it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wire.errors import DataError, said_by

__all__ = ["Table", "read_table"]


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of numbers; `names` are in small letters, and all empty if the file names no column."""

    names: tuple[str, ...]
    values: npt.NDArray[np.float64]


def read_table(file: Path) -> Table:
    """Returns the rows of a file and the names of its columns, if the first row holds them.

    The first row holds names if it names a column `label`, or if none of its cells is a number. Else it is an example
    like the others: one with a damaged cell is an error, and is not taken for names.
    """
    rows = _rows(file)
    cells = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    named = "label" in cells or not any(_is_number(cell) for cell in cells)
    examples = rows[1:] if named else rows
    if not examples:
        raise DataError(f"{file} holds no example", remedy="give it rows, or remove it")
    values = np.array([_numbers(file, line, row, len(examples[0][1])) for line, row in examples])
    names = tuple(cells) if named else ("",) * values.shape[1]
    if len(names) != values.shape[1]:
        raise DataError(f"{file}: {len(names)} names over {values.shape[1]} columns", remedy="name every column")
    return Table(names, values)


def _rows(file: Path) -> list[tuple[int, list[str]]]:
    """Returns the rows that are not empty, each with its line; the mark with which spreadsheets begin is left out."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream)
            return [(reader.line_num, row) for row in reader if row]
    except OSError as exc:
        remedy = "give a file that is there and may be read"
        raise DataError(f"{file} cannot be read: {said_by(exc)}", remedy=remedy) from exc
    except (UnicodeDecodeError, csv.Error) as exc:
        raise DataError(f"{file} cannot be read: {said_by(exc)}", remedy="save it as UTF-8 text with commas") from exc


def _numbers(file: Path, line: int, row: list[str], width: int) -> list[float]:
    if len(row) != width:
        raise DataError(
            f"{file}, line {line}: {len(row)} cells, {str(row)[:60]}", remedy=f"every row holds {width} numbers"
        )
    odd = next((at for at, cell in enumerate(row) if not _is_number(cell)), None)
    if odd is not None:
        raise DataError(
            f"{file}, line {line}, cell {odd + 1}: {row[odd][:60]!r} is no number",
            remedy="write numbers with a point for the decimals; names stand in the first row, and none is a number",
        )
    values = [float(cell) for cell in row]
    if not np.isfinite(values).all():
        raise DataError(f"{file}, line {line}: {str(row)[:60]} is not finite", remedy="repair or remove that row")
    return values


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
