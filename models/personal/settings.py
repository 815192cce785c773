"""The settings of a device's personal model (QuPeD). No torch: the coordinator checks them when a recipe is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from models.archs import tensors_of
from models.weights.settings import shaped_names
from wire.errors import ConfigError
from wire.settings import check_range, settings_from
from wire.spec import ModelSpec

__all__ = ["Personal", "personal_from", "quantised_names"]

_MOST_CENTRES = 256
_LARGEST = 1e6


@dataclass(frozen=True, slots=True)
class Personal:
    """How a device keeps a model of its own beside the global one.

    centres       values that a quantised tensor may take: 2 is 1 bit, 4 is 2 bits, 0 is full precision
    arch          an architecture of its own, "" for the global one's
    distil        lambda_p, the share of distillation in the loss
    temperature   of the softened answers; without `temper_student` only the teacher's are softened
    global_loss   what the global copy learns from: "ce+kd" labels and the personal model, "kd" the personal model alone
    prox          the distance that draws weights to their centres: "l1" or "l2" (squared)
    slope         lambda grows by this much each personal round after the warm start
    sharpness     of the soft quantiser; 0 is the hard limit
    warm_rounds   rounds in full precision before there are centres
    freeze_round  from this round on quantised tensors stand still at their centres; 0 is never
    rate          learning rate of the personal model, 0 for the plan's
    held_out      share of the examples that is only measured on
    local_only    also trains a model without distillation and reports it
    skip          tensors kept in full precision: "first", "last" or patterns; biases and norms always are
    """

    centres: int = 4
    arch: str = ""
    distil: float = 0.25
    temperature: float = 2.0
    temper_student: bool = True
    global_loss: str = "ce+kd"
    prox: str = "l1"
    slope: float = 5e-3
    centre_rate: float = 1e-3
    centre_clip: float = 10.0
    learn_centres: bool = True
    sharpness: float = 0.0
    warm_rounds: int = 10
    freeze_round: int = 0
    rate: float = 0.0
    held_out: float = 0.2
    local_only: bool = False
    skip: tuple[str, ...] = ("first", "last")

    def __post_init__(self) -> None:
        if self.centres != 0 and not 2 <= self.centres <= _MOST_CENTRES:
            remedy = f"choose 0 for full precision, or 2 to {_MOST_CENTRES}"
            raise ConfigError(f"personal: centres = {self.centres}", remedy=remedy)
        _check_choice("global_loss", self.global_loss, ("ce+kd", "kd"))
        _check_choice("prox", self.prox, ("l1", "l2"))
        check_range("personal: distil", self.distil, 0, 1)
        check_range("personal: temperature", self.temperature, 0.01, 1000)
        check_range("personal: centre_clip", self.centre_clip, 1e-6, _LARGEST)
        check_range("personal: held_out", self.held_out, 0, 0.9)
        for name in ("slope", "centre_rate", "sharpness", "warm_rounds", "rate"):
            check_range(f"personal: {name}", getattr(self, name), 0, _LARGEST)
        if self.global_loss == "kd" and not self.distil:
            said = 'personal: distil = 0 with global_loss = "kd" teaches the global model nothing'
            raise ConfigError(said, remedy='choose distil above 0, or global_loss = "ce+kd"')
        if self.freeze_round and not self.warm_rounds <= self.freeze_round <= _LARGEST:
            remedy = f"choose 0 for never, or at least warm_rounds = {self.warm_rounds}: before it there are no centres"
            raise ConfigError(f"personal: freeze_round = {self.freeze_round}", remedy=remedy)


def personal_from(table: Mapping[str, Any]) -> Personal:
    """Returns the settings in a plan's or a recipe's table."""
    return settings_from(Personal, table, "personal")


def quantised_names(personal: Personal, spec: ModelSpec) -> list[str]:
    """Returns the tensors of a net that get centres; frozen ones are rebuilt from the seed and stay as they are."""
    if not personal.centres:
        return []
    shapes = {tensor.name: tensor.shape for tensor in tensors_of(spec.arch, spec.input, spec.outputs)}
    trainable = {tensor.name for tensor in spec.trainable}
    chosen = [name for name in shaped_names(shapes, personal.skip) if name in trainable]
    if not chosen:
        raise ConfigError(
            f"personal: centres = {personal.centres} and skip = {list(personal.skip)} leave no tensor of"
            f" {spec.arch!r} to quantise",
            remedy="skip less (skip = [] quantises every weight matrix), or set centres = 0",
        )
    return chosen


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"personal: {name} = {value!r}", remedy=f"choose {' or '.join(choices)}")
