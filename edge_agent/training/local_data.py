"""The device's own examples. They are read in the training child and never leave it."""

from __future__ import annotations

from functools import lru_cache

from edge_agent.config import DataConfig
from models.data import Dataset, load, load_folder
from models.splits import Share
from models.tasks import task
from wire.errors import DataError
from wire.spec import ModelSpec

__all__ = ["fitting", "local_data", "share_of"]


def local_data(config: DataConfig, spec: ModelSpec) -> Dataset:
    """Returns the examples, checked against what the model takes in and gives out."""
    return fitting(_cached(config, spec.input), spec)


def share_of(config: DataConfig) -> Share | None:
    """Returns which part of a known task's data is the device's, or None for all."""
    if not config.split:
        return None
    return Share(config.split, config.parts, config.part, config.seed, config.examples)


def fitting(data: Dataset, spec: ModelSpec) -> Dataset:
    """Returns the examples as they are; raises DataError if the model cannot be trained on them."""
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
    return load(name, "train", share_of(config))
