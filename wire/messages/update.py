"""The update: what a device learnt in one round, with what it cost. Delta or weights, through the plan's stages."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from wire.errors import WireError
from wire.frame import Frame, Kind, encode_frame
from wire.messages.fields import choice_field, digest_field, id_field, int_field
from wire.messages.plan import KINDS, MAX_ROUND, RoundPlan
from wire.params import Array, Params
from wire.spec import ModelSpec
from wire.stages.tensors import Codec

__all__ = [
    "MAX_HEADER_BYTES",
    "Update",
    "UpdateHeader",
    "decode_update",
    "encode_update",
    "read_header",
    "update_codec",
]

MAX_HEADER_BYTES = 16 * 1024
_MOST_METRICS = 64


@dataclass(frozen=True, slots=True)
class UpdateHeader:
    """What stands before the tensors. `base` is the digest of the model that training started from.

    `metrics` are the device's own measurements; what it could not measure is absent.
    """

    run: str
    round: int
    device: str
    base: str
    kind: str
    examples: int
    metrics: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Update:
    """A header and the tensors."""

    header: UpdateHeader
    tensors: Params


def encode_update(
    update: Update, plan: RoundPlan, spec: ModelSpec, weights: Mapping[str, Array] | None = None
) -> bytes:
    """Returns the update as a frame, encoded as the plan says; the bits are named by (seed, round, device)."""
    head = update.header
    payload = update_codec(plan, spec).encode(update.tensors, (plan.seed, plan.round, head.device), weights)
    header = {
        "run": head.run,
        "round": head.round,
        "device": head.device,
        "base": head.base,
        "kind": head.kind,
        "examples": head.examples,
        "metrics": dict(head.metrics),
    }
    return encode_frame(Kind.UPDATE, header, payload)


def read_header(frame: Frame) -> UpdateHeader:
    """Returns the header of an update's frame, every field checked."""
    header = frame.header
    return UpdateHeader(
        run=id_field(header, "run"),
        round=int_field(header, "round", 0, MAX_ROUND),
        device=id_field(header, "device"),
        base=digest_field(header, "base"),
        kind=choice_field(header, "kind", KINDS),
        examples=int_field(header, "examples", -(1 << 62), 1 << 62),
        metrics=_metrics(header),
    )


def decode_update(frame: Frame, plan: RoundPlan, spec: ModelSpec) -> Params:
    """Returns the tensors of an update's frame, exactly as its sender sees them."""
    return update_codec(plan, spec).decode(frame.payload)


def update_codec(plan: RoundPlan, spec: ModelSpec) -> Codec:
    """Returns how the plan wants the tensors coded."""
    return Codec.of(spec.trainable, plan.stages, plan.scope, plan.whole)


def _metrics(header: Mapping[str, Any]) -> dict[str, float | str]:
    metrics = header.get("metrics")
    if not isinstance(metrics, dict) or len(metrics) > _MOST_METRICS:
        raise WireError(f"field 'metrics' is not an object of at most {_MOST_METRICS} entries")
    for name, value in metrics.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        if not (number or (isinstance(value, str) and len(value) <= 200)) or len(name) > 64:
            raise WireError(f"metric {name[:64]!r} is not a finite number or a short text")
    return metrics
