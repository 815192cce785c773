"""What a plan says about local training: plain SGD, and by name what else is installed on the device to shape it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from wire.errors import WireError
from wire.messages.fields import float_field, int_field, text_field

__all__ = ["TrainSettings", "read_train", "train_json"]

_MOST_TRANSFORMS = 8
_MOST_OPTIONS = 32
_OPTIONAL = ("transforms", "penalty", "personal")


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What to train on and how: SGD over the device's own data.

    `transforms` reshape the weights of each forward pass, `penalty` is added to the loss, `personal` keeps a model of
    the device's own beside the global one. Each is a table of settings; a device refuses what it does not know.
    """

    task: str
    epochs: int = 1
    batch: int = 32
    rate: float = 0.1
    momentum: float = 0.0
    decay: float = 0.0
    transforms: tuple[Mapping[str, Any], ...] = ()
    penalty: Mapping[str, Any] = field(default_factory=dict)
    personal: Mapping[str, Any] = field(default_factory=dict)


def train_json(train: TrainSettings) -> dict[str, Any]:
    """Returns the settings as a plan holds them; what is not used takes no byte."""
    return {name: value for name, value in asdict(train).items() if value or name not in _OPTIONAL}


def read_train(item: Mapping[str, Any]) -> TrainSettings:
    """Returns the settings in a plan, every field checked."""
    transforms = item.get("transforms", [])
    if not isinstance(transforms, list) or len(transforms) > _MOST_TRANSFORMS:
        raise WireError(f"field 'transforms' is not a list of at most {_MOST_TRANSFORMS} tables")
    return TrainSettings(
        task=text_field(item, "task"),
        epochs=int_field(item, "epochs", 0, 10_000),
        batch=int_field(item, "batch", 1, 1 << 20),
        rate=float_field(item, "rate", 0, 1e6),
        momentum=float_field(item, "momentum", 0, 1),
        decay=float_field(item, "decay", 0, 1),
        transforms=tuple(_table(one, "transforms") for one in transforms),
        penalty=_table(item.get("penalty", {}), "penalty"),
        personal=_table(item.get("personal", {}), "personal"),
    )


def _table(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict) or len(value) > _MOST_OPTIONS:
        raise WireError(f"field {name!r} is not a table of at most {_MOST_OPTIONS} settings")
    return value
