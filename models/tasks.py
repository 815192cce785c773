"""Tasks by name: a dataset, the model for it, and what counts as good."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from models.data import load
from models.plugins import DATA_GROUP, installed, nearest
from wire.errors import ConfigError

__all__ = ["Task", "dataset_of", "task", "task_names"]


@dataclass(frozen=True, slots=True)
class Task:
    """What is learnt: `data` and `arch` are names; `data` and `metric` are None where there is nothing to learn."""

    name: str
    data: str | None
    arch: str
    input: tuple[int, ...]
    outputs: int
    metric: str | None = "accuracy"
    labels: tuple[str, ...] = ()
    source: str = ""


_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_WATCH = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")

_BUILT_IN = {
    one.name: one
    for one in (
        Task(
            name="digits",
            data="digits",
            arch="mlp",
            input=(1, 8, 8),
            outputs=10,
            labels=tuple("0123456789"),
            source="UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998), CC BY 4.0",
        ),
        Task(
            name="fashion",
            data="fashion",
            arch="cnn",
            input=(1, 28, 28),
            outputs=10,
            labels=_FASHION,
            source="Fashion-MNIST, Copyright 2017 Zalando SE, MIT (Expat) licence",
        ),
        Task(
            name="watch",
            data="watch",
            arch="cnn1d",
            input=(6, 100),
            outputs=7,
            labels=_WATCH,
            source="Shoulder exercises of 10 people wearing a smartwatch (Burns et al. 2018), seglearn, BSD 3-Clause",
        ),
        Task(
            name="echo",
            data=None,
            arch="vector",
            input=(1,),
            outputs=1,
            metric=None,
            source="no data: devices send the vector around, to measure everything but training",
        ),
    )
}


def task_names() -> tuple[str, ...]:
    """Returns every task that can be named on this machine: the built-in ones and every installed dataset."""
    return tuple(sorted({*_BUILT_IN, *installed(DATA_GROUP)}))


def dataset_of(name: str) -> str | None:
    """Returns the name of a task's dataset, or None if it has none; reads no data."""
    if name in _BUILT_IN:
        return _BUILT_IN[name].data
    if name not in installed(DATA_GROUP):
        raise ConfigError(f"unknown task {name!r}", remedy=nearest(name, task_names()))
    return name


@cache
def task(name: str) -> Task:
    """Returns a task; one made of an installed dataset takes its shape from the data, and `mlp` as its arch.

    Such data are loaded once a process for that, and not kept.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]
    data = load(str(dataset_of(name)))
    return Task(name, name, "mlp", data.x.shape[1:], int(data.y.max()) + 1, source="an installed package")
