"""The plan: all that a device needs for one round. It names what is installed on the device and carries no code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from typing import Any

from wire.errors import WireError
from wire.frame import Frame, Kind, decode_frame, encode_frame
from wire.messages.fields import choice_field, digest_field, float_field, id_field, int_field, text_field

__all__ = [
    "KINDS",
    "BlobRef",
    "Envelope",
    "RoundPlan",
    "TrainSettings",
    "decode_plan",
    "encode_plan",
    "read_plan",
    "shortest_path",
]

KINDS = ("delta", "weights")
MAX_ROUND = 1 << 31
MAX_BYTES = 1 << 40
MAX_BLOBS = 4096
MAX_STAGES = 8


@dataclass(frozen=True, slots=True)
class BlobRef:
    """A blob by its digest: it turns the model `source` (empty: nothing; a snapshot) into the model `target`."""

    digest: str
    size: int
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What to train on and how: plain SGD over the device's own data."""

    task: str
    epochs: int = 1
    batch: int = 32
    rate: float = 0.1
    momentum: float = 0.0
    decay: float = 0.0


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the round is expected to need on a device; zero says that nobody knows yet."""

    memory_bytes: int = 0
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """One round. `base` names the model to start from, `spec` the net, `blobs` the ways that lead to `base`.

    `seed` names every random choice of the round together with the device's id. `initial` is the digest of the model
    that the spec's seed gives, so that a new device may start the chain of blobs without fetching anything.
    """

    run: str
    round: int
    seed: int
    base: str
    initial: str
    spec: str
    spec_bytes: int
    blobs: tuple[BlobRef, ...]
    train: TrainSettings
    deadline_s: float
    kind: str = "delta"
    scope: str = "update"
    stages: tuple[Mapping[str, Any], ...] = ()
    envelope: Envelope = field(default_factory=Envelope)


def encode_plan(plan: RoundPlan, sign: Callable[[bytes], bytes] | None = None) -> bytes:
    """Returns the plan as a frame without payload."""
    return encode_frame(Kind.PLAN, asdict(plan), sign=sign)


def decode_plan(data: bytes) -> RoundPlan:
    """Returns the plan in a frame; does not look at the signature."""
    return read_plan(decode_frame(data, Kind.PLAN))


def read_plan(frame: Frame) -> RoundPlan:
    """Returns the plan in a decoded frame, every field checked."""
    header = frame.header
    if len(frame.payload):
        raise WireError(f"a plan has no payload, this one has {len(frame.payload)} bytes")
    return RoundPlan(
        run=id_field(header, "run"),
        round=int_field(header, "round", 0, MAX_ROUND),
        seed=int_field(header, "seed", 0, (1 << 63) - 1),
        base=digest_field(header, "base"),
        initial=digest_field(header, "initial"),
        spec=digest_field(header, "spec"),
        spec_bytes=int_field(header, "spec_bytes", 1, 1 << 20),
        blobs=tuple(_blob(item) for item in _list(header, "blobs", MAX_BLOBS)),
        train=_train(_object(header, "train")),
        deadline_s=float_field(header, "deadline_s", 0, 1e9),
        kind=choice_field(header, "kind", KINDS),
        scope=choice_field(header, "scope", ("tensor", "update")),
        stages=tuple(_list(header, "stages", MAX_STAGES)),
        envelope=_envelope(_object(header, "envelope")),
    )


def shortest_path(blobs: Iterable[BlobRef], held: Iterable[str], goal: str, cached: Iterable[str]) -> list[BlobRef]:
    """Returns the blobs, in order, that lead to `goal` from nothing or a held model with the fewest bytes to fetch."""
    owned, onward = set(cached), _by_source(blobs)
    came: dict[str, BlobRef | None] = {}
    queue: list[tuple[int, int, str, BlobRef | None]] = [(0, n, model, None) for n, model in enumerate(["", *held])]
    count = len(queue)
    while queue and goal not in came:
        spent, _, model, by = heappop(queue)
        if model in came:
            continue
        came[model] = by
        for ref in onward.get(model, ()):
            heappush(queue, (spent + (0 if ref.digest in owned else ref.size), count, ref.target, ref))
            count += 1
    if goal not in came:
        raise WireError(f"no blob of the plan leads to model {goal[:12]}", code="E-BLOB")
    return _way_back(came, goal)


def _by_source(blobs: Iterable[BlobRef]) -> dict[str, list[BlobRef]]:
    onward: dict[str, list[BlobRef]] = {}
    for ref in blobs:
        onward.setdefault(ref.source, []).append(ref)
    return onward


def _way_back(came: Mapping[str, BlobRef | None], goal: str) -> list[BlobRef]:
    path: list[BlobRef] = []
    ref = came[goal]
    while ref is not None:
        path.append(ref)
        ref = came[ref.source]
    return path[::-1]


def _blob(item: Mapping[str, Any]) -> BlobRef:
    return BlobRef(
        digest=digest_field(item, "digest"),
        size=int_field(item, "size", 1, MAX_BYTES),
        source=digest_field(item, "source", empty=True),
        target=digest_field(item, "target"),
    )


def _train(item: Mapping[str, Any]) -> TrainSettings:
    return TrainSettings(
        task=text_field(item, "task"),
        epochs=int_field(item, "epochs", 0, 10_000),
        batch=int_field(item, "batch", 1, 1 << 20),
        rate=float_field(item, "rate", 0, 1e6),
        momentum=float_field(item, "momentum", 0, 1),
        decay=float_field(item, "decay", 0, 1),
    )


def _envelope(item: Mapping[str, Any]) -> Envelope:
    return Envelope(int_field(item, "memory_bytes", 0, MAX_BYTES), int_field(item, "disk_bytes", 0, MAX_BYTES))


def _object(header: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = header.get(name)
    if not isinstance(value, dict):
        raise WireError(f"field {name!r} is not an object")
    return value


def _list(header: Mapping[str, Any], name: str, most: int) -> list[Mapping[str, Any]]:
    value = header.get(name)
    if not isinstance(value, list) or len(value) > most or not all(isinstance(item, dict) for item in value):
        raise WireError(f"field {name!r} is not a list of at most {most} objects")
    return value
