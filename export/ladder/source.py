"""What is exported, and how it is judged on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from export.proof.reference import answering
from export.refused import ExportError
from models.dataset import Dataset, checked
from models.init import frozen
from wire.bits import Bits
from wire.errors import ConfigError, DataError
from wire.messages.fields import DEVICE_ID
from wire.params import Array, check_shapes
from wire.settings import check_range
from wire.spec import ModelSpec

__all__ = ["Judged", "Source", "judged"]

_CHECKED = 64
_CANDIDATES = 256
_MOST_CALIBRATION = 1_000_000


@dataclass(frozen=True, slots=True)
class Judged:
    """Mean cross-entropy and accuracy over some examples."""

    loss: float
    accuracy: float
    examples: int


@dataclass(frozen=True)
class Source:
    """A trained model. `data` are examples that it was not trained on: the first `calibration` of them choose ranges
    and grids, the others are what accuracies are stated on. Without them nothing is known of its accuracy, nor is it of
    a net of one output, which tells no classes apart.

    `tables` are learned centres by weight (QuPeD); `still` the frozen tensors if the seed does not give them.
    """

    spec: ModelSpec
    params: Mapping[str, Array]
    model: str
    data: Dataset | None = None
    calibration: int = 256
    still: Mapping[str, Array] | None = None
    tables: Mapping[str, Array] = field(default_factory=dict)
    run: str = ""
    lineage: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    preprocessing: str = ""

    def __post_init__(self) -> None:
        if not DEVICE_ID.fullmatch(self.model):
            raise ConfigError(f"model name {self.model!r}", remedy="use 1 to 32 of a-z, 0-9 and hyphen")
        if len(self.labels) not in (0, self.spec.outputs):
            raise ConfigError(f"{len(self.labels)} labels for {self.spec.outputs} outputs", remedy="name each, or none")
        check_range("--calibration", self.calibration, 1, _MOST_CALIBRATION)
        check_shapes(self.params, self.spec.trainable)
        for name, values in (*self.values.items(), *self.tables.items()):
            if not np.isfinite(values).all():
                raise ExportError(f"{name!r} holds values that are not finite", remedy="train again")
        if self.examples is not None and self.examples.x.shape[1:] != self.spec.input:
            raise DataError(
                f"examples of shape {self.examples.x.shape[1:]} for a net that takes {self.spec.input}",
                remedy="name the task that the model was trained for",
            )

    @cached_property
    def values(self) -> dict[str, Array]:
        """Returns all tensors of the net, frozen ones included."""
        return {**self.params, **(frozen(self.spec) if self.still is None else self.still)}

    @cached_property
    def examples(self) -> Dataset | None:
        """Returns `data`, checked."""
        return None if self.data is None else checked(self.data, "examples of the export", self.spec.outputs)

    @cached_property
    def chooses(self) -> Dataset | None:
        """Returns the examples that choices are made on."""
        return None if self.examples is None else _part(self.examples, slice(self.calibration))

    @cached_property
    def others(self) -> Dataset | None:
        """Returns the examples that no choice was made on; None if there are none."""
        if self.examples is None or len(self.examples) <= self.calibration:
            return None
        return _part(self.examples, slice(self.calibration, None))

    @cached_property
    def states(self) -> Dataset | None:
        """Returns the examples that accuracies are stated on; None if all of them went into choices."""
        return self.others if self.spec.outputs > 1 else None

    @cached_property
    def checks(self) -> Array:
        """Returns the inputs that files are compared on: examples, or noise where there are none."""
        if self.chooses is not None:
            return np.ascontiguousarray(self.chooses.x[:_CHECKED])
        words = Bits.of(self.spec.seed, "export inputs").words(_CHECKED * int(np.prod(self.spec.input)))
        noise = (words >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)
        return np.ascontiguousarray(noise.reshape(_CHECKED, *self.spec.input))

    @cached_property
    def candidates(self) -> Array:
        """Returns the inputs that golden ones are taken from."""
        return self.checks if self.chooses is None else np.ascontiguousarray(self.chooses.x[:_CANDIDATES])

    def answers(self, weights: Mapping[str, Array], inputs: Array) -> Array:
        """Returns what PyTorch answers with these weights in place of the model's own."""
        return self._net(weights, inputs)

    def choosing(self, weights: Mapping[str, Array]) -> Judged | None:
        """Returns how these weights do on the examples that choose; None if there is nothing to judge by."""
        if self.chooses is None or self.spec.outputs < 2:
            return None
        return judged(self.answers(weights, self.chooses.x), self.chooses.y)

    @cached_property
    def _net(self) -> Callable[[Mapping[str, Array], Array], Array]:
        return answering(self.spec, self.params, self.still)


def judged(logits: Array, labels: npt.NDArray[np.int64]) -> Judged:
    """Returns loss and accuracy of these outputs; ExportError if they are not finite."""
    if not np.isfinite(logits).all():
        raise ExportError(f"{int((~np.isfinite(logits)).sum())} outputs are not finite", remedy="train again")
    top = logits.max(1, keepdims=True)
    norm = top[:, 0] + np.log(np.exp(logits - top, dtype=np.float64).sum(1))
    own = logits[np.arange(len(labels)), labels]
    return Judged(float((norm - own).mean()), float((logits.argmax(1) == labels).mean()), len(labels))


def _part(data: Dataset, places: slice) -> Dataset:
    return Dataset(data.x[places], data.y[places], preprocessing=data.preprocessing)
