"""The device's own examples. They are read in the training child and never leave it."""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

import numpy as np

from edge_agent.config import DataConfig
from models.data import Dataset, load, load_folder
from models.splits import Share
from models.tasks import dataset_of
from wire.errors import DataError
from wire.spec import ModelSpec

__all__ = ["fitting", "held_out_data", "local_data", "share_of"]


def local_data(config: DataConfig, spec: ModelSpec) -> Dataset:
    """Returns the examples to train on, checked against what the model takes in and gives out."""
    data = fitting(_cached(config, spec.input), spec)
    return fitting(_part(data, config.held_out, False), spec) if config.held_out else data


def held_out_data(config: DataConfig, shape: tuple[int, ...]) -> Dataset | None:
    """Returns the examples that are never trained on, or None if the device keeps none."""
    data = _cached(config, shape) if config.held_out else None
    if data is None or data.x.shape[1:] != shape:
        return None
    kept = _part(data, config.held_out, True)
    return kept if len(kept) else None


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
    name = dataset_of(config.task)
    if name is None:
        raise DataError(f"task {config.task!r} has no data", remedy="name a folder in [data]")
    return load(name, "train", share_of(config))


def _part(data: Dataset, share: float, held: bool) -> Dataset:
    """Returns the held-out part or the rest. An example's own bytes decide, so it stays where it is as others come."""
    most = int(share * (1 << 64))
    chosen = [int.from_bytes(sha256(x.tobytes()).digest()[:8], "little") < most for x in data.x]
    return data.take(np.flatnonzero(np.array(chosen) == held))
