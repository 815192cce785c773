"""Which grid at which width: every range is tried, and the one that loses least on the examples that choose is taken.

Where nothing can be judged (no examples, or one output) the least error of the weights themselves decides, and the
report says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from export.forms import Form
from export.graph import replaced
from export.grids import RANGES, place, sqnr_db
from export.int8 import ACTIVATION_RANGES, Activations, ranges_of
from export.ladder.source import Source, judged
from export.sessions import answers, open_session
from export.variant import computed, write
from models.dataset import Dataset
from wire.errors import ConfigError
from wire.params import Array

__all__ = ["Chosen", "activations_of", "choose_range", "choose_rule", "examples_of", "loss_of"]

_LOSSLESS_DB = 200.0  # a tensor that nothing is lost of must not hide what the others lose


@dataclass(frozen=True, slots=True)
class Chosen:
    """The forms of one width, the range they come from, and what decided: "loss" or "sqnr"."""

    forms: Mapping[str, Form]
    range: str
    by: str
    loss: float


def choose_range(source: Source, weights: Mapping[str, Array], bits: int, profile: str) -> Chosen:
    """Returns the forms of the best range at this width."""
    found = []
    for name in RANGES:
        forms = {weight: place(values, bits, name, profile) for weight, values in weights.items()}
        by, loss = loss_of(source, weights, forms, profile)
        found.append(Chosen(forms, name, by, loss))
    return min(found, key=lambda one: one.loss)


def loss_of(source: Source, weights: Mapping[str, Array], forms: Mapping[str, Form], profile: str) -> tuple[str, float]:
    """Returns what these forms lose, and by which measure."""
    seen = source.choosing({name: computed(form, profile) for name, form in forms.items()})
    if seen is not None:
        return "loss", seen.loss
    return "sqnr", -float(np.mean([min(_LOSSLESS_DB, sqnr_db(weights[name], form)) for name, form in forms.items()]))


def choose_rule(source: Source, model: onnx.ModelProto, weights: Mapping[str, Array]) -> str:
    """Returns the rule for ranges of activations that loses least with 8-bit weights; ConfigError without examples."""
    forms = {name: place(values, 8, "minmax", "int8") for name, values in weights.items()}
    found: list[tuple[float, int]] = []
    for at, rule in enumerate(ACTIVATION_RANGES):
        ranges = activations_of(source, model, forms, rule)
        session = open_session(write(model, forms, "int8", ranges))
        found.append((_lost(source, answers(session, examples_of(source).x)), at))
    return ACTIVATION_RANGES[min(found)[1]]


def activations_of(source: Source, model: onnx.ModelProto, forms: Mapping[str, Form], rule: str) -> Activations:
    """Returns the ranges of activations of the net with these very weights: few bits move them."""
    rounded = replaced(model, {name: computed(form, "int8") for name, form in forms.items()})
    return ranges_of(rounded, examples_of(source).x, rule)


def examples_of(source: Source) -> Dataset:
    """Returns the examples that choose; ConfigError if there are none."""
    if source.chooses is None:
        raise ConfigError(
            "profile int8 measures the ranges of activations on examples, and there are none",
            remedy="name a task whose data this machine has, or export with --profile float",
        )
    return source.chooses


def _lost(source: Source, found: Array) -> float:
    """Returns the loss of these outputs; of a net of one output how far, squared, they are from PyTorch's."""
    chooses = examples_of(source)
    if source.spec.outputs > 1:
        return judged(found, chooses.y).loss
    return float(np.square(found - source.answers({}, chooses.x), dtype=np.float64).mean())
