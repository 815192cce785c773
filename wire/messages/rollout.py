"""What is said around a new model: the coordinator offers a manifest, a device says what became of it.

`staged`, `active` and `healthy` are three facts, each the newest version of which it is true; 0 is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wire.errors import WireError
from wire.frame import Frame, Kind, decode_frame, encode_frame
from wire.messages.fields import (
    choice_field,
    digest_field,
    float_field,
    id_field,
    int_field,
    known_field,
    objects_field,
    text_field,
)
from wire.messages.manifest import MANIFEST_BYTES

__all__ = [
    "MODEL_PHASES",
    "Found",
    "ModelReport",
    "Offer",
    "decode_model_report",
    "encode_model_report",
    "encode_offer",
    "read_offer",
]

MODEL_PHASES = ("none", "fetching", "checking", "staged", "active", "healthy", "refused", "rolled-back", "pinned")
_REPORT_BYTES = 64 * 1024
_MOST_FOUND = 64
_MOST_REASON = 400
_MOST_SOURCE = 100
_MOST_VERSION = 1 << 53


@dataclass(frozen=True, slots=True)
class Offer:
    """A device may now have the manifest of this digest. `rollout` names the roll-out that says so.

    It names the device: whoever carries offers about must not make one device's another's.
    """

    rollout: str
    manifest: str
    size: int
    version: int
    device: str


@dataclass(frozen=True, slots=True)
class Found:
    """What the device itself measured of one variant; None is unknown. `fits` tells whether its policy allows it.

    `energy_source` is the meter that `energy_mj` is from.
    """

    variant: str
    fits: bool
    why: str
    latency_ms: float | None = None
    memory_bytes: int | None = None
    energy_mj: float | None = None
    energy_source: str = ""
    accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class ModelReport:
    """Where a device stands. `offered` is the version in hand, `variant` the one it serves or tries, and why."""

    phase: str = "none"
    offered: int = 0
    staged: int = 0
    active: int = 0
    healthy: int = 0
    variant: str = ""
    bits: float = 0.0
    why: str = ""
    code: str = ""
    reason: str = ""
    found: tuple[Found, ...] = ()


def encode_offer(offer: Offer, sign: Callable[[bytes], bytes] | None = None) -> bytes:
    """Returns the offer as a frame, signed as plans are."""
    return encode_frame(Kind.OFFER, asdict(offer), sign=sign)


def read_offer(frame: Frame) -> Offer:
    """Returns the offer in a decoded frame, every field checked."""
    header = _plain(frame)
    return Offer(
        rollout=id_field(header, "rollout"),
        manifest=digest_field(header, "manifest"),
        size=int_field(header, "size", 1, MANIFEST_BYTES),
        version=int_field(header, "version", 1, _MOST_VERSION),
        device=id_field(header, "device"),
    )


def encode_model_report(report: ModelReport) -> bytes:
    """Returns the report as a frame; long texts are cut, since they must not cost the message."""
    header = asdict(report)
    header["why"], header["reason"] = report.why[:_MOST_REASON], report.reason[:_MOST_REASON]
    header["found"] = [_cut(one) for one in report.found]
    return encode_frame(Kind.MODEL, header)


def decode_model_report(data: bytes) -> ModelReport:
    """Returns the report in a frame."""
    header = _plain(decode_frame(data, Kind.MODEL, _REPORT_BYTES))
    return ModelReport(
        phase=choice_field(header, "phase", MODEL_PHASES),
        offered=int_field(header, "offered", 0, _MOST_VERSION),
        staged=int_field(header, "staged", 0, _MOST_VERSION),
        active=int_field(header, "active", 0, _MOST_VERSION),
        healthy=int_field(header, "healthy", 0, _MOST_VERSION),
        variant=text_field(header, "variant", 32),
        bits=float_field(header, "bits", 0, 32),
        why=text_field(header, "why", _MOST_REASON),
        code=text_field(header, "code", 40),
        reason=text_field(header, "reason", _MOST_REASON),
        found=tuple(_found(one) for one in objects_field(header, "found", 0, _MOST_FOUND)),
    )


def _cut(one: Found) -> dict[str, Any]:
    return {**asdict(one), "why": one.why[:_MOST_REASON], "energy_source": one.energy_source[:_MOST_SOURCE]}


def _found(header: Mapping[str, Any]) -> Found:
    """Returns a finding; books and brokers still hold some of when no meter was named."""
    fits = header.get("fits")
    if not isinstance(fits, bool):
        raise WireError(f"field 'fits' is {fits!r}, expected true or false")
    memory = header.get("memory_bytes")
    return Found(
        variant=id_field(header, "variant"),
        fits=fits,
        why=text_field(header, "why", _MOST_REASON),
        latency_ms=known_field(header, "latency_ms", 1e9),
        memory_bytes=None if memory is None else int_field(header, "memory_bytes", 0, 1 << 50),
        energy_mj=known_field(header, "energy_mj", 1e12),
        energy_source=text_field({"energy_source": "", **header}, "energy_source", _MOST_SOURCE),
        accuracy=known_field(header, "accuracy", 1.0),
    )


def _plain(frame: Frame) -> Mapping[str, Any]:
    if len(frame.payload):
        raise WireError(f"a {frame.kind.name.lower()} has no payload, this one has {len(frame.payload)} bytes")
    return frame.header
