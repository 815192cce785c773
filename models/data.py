"""Datasets by name, and from a folder.

Names: `digits`, `fashion` and `watch`, then the entry points of group `bitfleet.data`, each a callable that takes
"train" or "test" and returns a Dataset.
"""

from __future__ import annotations

from models.dataset import Dataset, checked
from models.plugins import DATA_GROUP, installed, nearest, plugin
from models.sources.folder import load_folder
from models.sources.sets import SETS
from models.splits import Share, indices_of
from wire.errors import ConfigError, DataError

__all__ = ["Dataset", "checked", "data_names", "load", "load_folder"]


def data_names() -> tuple[str, ...]:
    """Returns every dataset that can be named on this machine, fetched or not."""
    return tuple(sorted({*SETS, *installed(DATA_GROUP)}))


def load(name: str, part: str = "train", share: Share | None = None) -> Dataset:
    """Returns the `train` or `test` part of a dataset, or one share of that part; nothing is ever downloaded here."""
    if part not in ("train", "test"):
        raise ConfigError(f"part {part!r} of dataset {name!r}", remedy="use train or test")
    if name in SETS:
        return SETS[name](part).chosen(share)
    data = _foreign(name, part)
    return data if share is None else data.take(indices_of(share, data.y, data.subject))


def _foreign(name: str, part: str) -> Dataset:
    source = plugin(DATA_GROUP, name)
    if source is None:
        raise ConfigError(f"unknown dataset {name!r}", remedy=nearest(name, data_names()))
    data = source(part) if callable(source) else source
    if not isinstance(data, Dataset):
        raise DataError(f"dataset {name!r} gives {type(data).__name__}", remedy="return a models.data.Dataset")
    return checked(data, f"dataset {name!r}, part {part!r}")
