"""A pretrained trunk: frozen tensors from a file instead of a seed."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from wire.errors import DataError, said_by
from wire.params import Params
from wire.spec import TensorSpec

__all__ = ["read_arrays"]


def read_arrays(path: Path, order: Sequence[TensorSpec]) -> Params:
    """Returns the tensors of these names in a .npz file; others in it are left alone."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file, np.errstate(over="ignore"):
            found = {tensor.name: file[tensor.name].astype(np.float32, casting="same_kind") for tensor in order}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, BadZipFile, zlib.error) as exc:
        raise DataError(f"trunk {path}: {said_by(exc)}", remedy="save it by numpy.savez, by name") from exc
    for tensor in order:
        if found[tensor.name].shape != tensor.shape or not np.isfinite(found[tensor.name]).all():
            raise DataError(
                f"trunk {path}: {tensor.name!r} of shape {found[tensor.name].shape}, expected finite {tensor.shape}",
                remedy="save the net that the recipe names",
            )
    return found
