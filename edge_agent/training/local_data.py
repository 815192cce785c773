"""The device's own examples. They are read in the training child and never leave it."""

from __future__ import annotations

from functools import lru_cache

from edge_agent.config import DataConfig
from models.data import Dataset, load, load_folder
from models.splits import Share
from models.tasks import task
from wire.errors import DataError
from wire.spec import ModelSpec

__all__ = ["local_data"]


def local_data(config: DataConfig, spec: ModelSpec) -> Dataset:
    """Returns the examples, checked against what the model takes in and gives out."""
    data = _cached(config, spec.input)
    if data.x.shape[1:] != spec.input:
        raise DataError(f"examples have shape {data.x.shape[1:]}, the model takes {spec.input}")
    if not len(data):
        raise DataError("there are no examples on this device")
    if int(data.y.max()) >= spec.outputs:
        raise DataError(f"label {int(data.y.max())}, the model knows 0 to {spec.outputs - 1}")
    return data


@lru_cache(maxsize=1)
def _cached(config: DataConfig, shape: tuple[int, ...]) -> Dataset:
    if config.folder:
        return load_folder(config.folder, shape)
    name = task(config.task).data
    if name is None:
        raise DataError(f"task {config.task!r} has no data", remedy="name a folder in [data]")
    share = Share(config.split, config.parts, config.part, config.seed) if config.split else None
    return load(name, "train", share)
