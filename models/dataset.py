"""Examples to train and measure on, and what they must satisfy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wire.errors import DataError

__all__ = ["Dataset", "Index", "checked"]

Index = npt.NDArray[np.int64]
_LONGEST_TEXT = 500  # a manifest takes 1000


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples: x float32 of shape (examples, *input), y the labels from 0, subject who each one is from.

    `preprocessing` says in words what was done to raw values, as "values / 255": an application has to do the same.
    """

    x: npt.NDArray[np.float32]
    y: Index
    subject: Index | None = None
    preprocessing: str = ""

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Index) -> Dataset:
        """Returns the examples at these places."""
        subject = None if self.subject is None else self.subject[index]
        return Dataset(self.x[index], self.y[index], subject, self.preprocessing)

    def spread(self, most: int) -> Dataset:
        """Returns all examples, or `most` of them at even distances: files may be sorted by their labels."""
        return self if len(self) <= most else self.take(np.arange(most) * len(self) // most)


def checked(data: Dataset, place: str, outputs: int | None = None) -> Dataset:
    """Returns the dataset as float32 and int64; raises DataError for anything that cannot be trained on."""
    x, y = np.asarray(data.x), _whole(data.y, "y", place)
    subject = None if data.subject is None else _whole(data.subject, "subject", place)
    if x.dtype.kind not in "fiu" or x.ndim < 2:
        raise DataError(
            f"{place}: x is {x.dtype} of shape {x.shape}", remedy="save x as numbers of shape (examples, values...)"
        )
    lengths = {len(one) for one in (x, y, subject) if one is not None}
    if not x.size or len(lengths) > 1:
        raise DataError(
            f"{place}: x, y and subject have the lengths {sorted(lengths)}, x the shape {x.shape}",
            remedy="give at least one example, and every example one of each",
        )
    _check_labels(y, place, outputs)
    if not isinstance(data.preprocessing, str) or len(data.preprocessing) > _LONGEST_TEXT:
        raise DataError(
            f"{place}: preprocessing is {data.preprocessing!r:.60}",
            remedy=f"say in at most {_LONGEST_TEXT} characters what was done to raw values, or nothing",
        )
    return Dataset(_finite(x, place), y, subject, data.preprocessing)


def _whole(values: Any, name: str, place: str) -> Index:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DataError(
            f"{place}: {name} is {array.dtype} of shape {array.shape}",
            remedy=f"save {name} as whole numbers, one an example",
        )
    return array.astype(np.int64)


def _finite(x: npt.NDArray[Any], place: str) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(x, dtype=np.float32)
    broken = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if broken.any():
        raise DataError(
            f"{place}: x[{broken.argmax()}] holds a value that is not finite as float32",
            remedy="repair or remove that example",
        )
    return values


def _check_labels(y: Index, place: str, outputs: int | None) -> None:
    odd = (y < 0) if outputs is None else (y < 0) | (y >= outputs)
    if odd.any():
        span = "from 0 up" if outputs is None else f"from 0 to {outputs - 1}"
        raise DataError(f"{place}: label y[{odd.argmax()}] is {y[odd.argmax()]}", remedy=f"use labels {span}")
