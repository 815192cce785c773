"""Datasets by name, and from a folder.

Names: `digits`, `fashion` and `watch`, then the entry points of group `bitfleet.data`, each a callable that takes
"train" or "test" and returns a Dataset.
"""

from __future__ import annotations

import numpy as np

from models.dataset import Dataset, checked
from models.plugins import DATA_GROUP, installed, nearest, plugin
from models.sources.folder import load_folder
from models.sources.sets import SETS, Stored
from models.splits import Share, indices_of
from wire.errors import ConfigError, DataError

__all__ = ["Dataset", "checked", "data_names", "load", "load_folder", "stored"]


def data_names() -> tuple[str, ...]:
    """Returns every dataset that can be named on this machine, fetched or not."""
    return tuple(sorted({*SETS, *installed(DATA_GROUP)}))


def load(name: str, part: str = "train", share: Share | None = None) -> Dataset:
    """Returns the `train` or `test` part of a dataset, or one share of that part; nothing is ever downloaded here."""
    held = stored(name, part)
    if share is not None:
        return held.take(indices_of(share, held.y, held.subject))
    return held if isinstance(held, Dataset) else held.take(np.arange(len(held.y)))


def stored(name: str, part: str = "train") -> Stored | Dataset:
    """Returns the `train` or `test` part as it is kept, for whoever takes several shares of it."""
    if part not in ("train", "test"):
        raise ConfigError(f"part {part!r} of dataset {name!r}", remedy="use train or test")
    return SETS[name](part) if name in SETS else _foreign(name, part)


def _foreign(name: str, part: str) -> Dataset:
    source = plugin(DATA_GROUP, name)
    if source is None:
        raise ConfigError(f"unknown dataset {name!r}", remedy=nearest(name, data_names()))
    data = source(part) if callable(source) else source
    if not isinstance(data, Dataset):
        raise DataError(f"dataset {name!r} gives {type(data).__name__}", remedy="return a models.data.Dataset")
    return checked(data, f"dataset {name!r}, part {part!r}")
