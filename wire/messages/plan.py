"""The plan: all that a device needs for one round. It names what is installed on the device and carries no code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from heapq import heappop, heappush
from typing import Any

from wire.errors import WireError
from wire.frame import Frame, Kind, decode_frame, encode_frame
from wire.messages.fields import choice_field, digest_field, flag_field, float_field, id_field, int_field, text_field
from wire.messages.train import TrainSettings, read_train, train_json

__all__ = [
    "KINDS",
    "OPTIONAL",
    "BlobRef",
    "Envelope",
    "RoundPlan",
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
MAX_PATTERNS = 64
MAX_GIVEN_UP = 64
MAX_CHAIN_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class BlobRef:
    """A blob by its digest: it turns the model `source` (empty: nothing; a snapshot) into the model `target`."""

    digest: str
    size: int
    source: str
    target: str


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

    `clip` bounds the length of the whole update (0: no bound). With `feedback` a device adds what was left out.
    `whole` are patterns of tensors that no top-k thins. `chain` is the list of older deltas (see `chain`), `trunk` the
    blob with the frozen tensors; empty where there is none. `given_up` are rounds whose accepted updates count nowhere.
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
    clip: float = 0.0
    feedback: bool = False
    whole: tuple[str, ...] = ()
    chain: str = ""
    chain_bytes: int = 0
    trunk: str = ""
    trunk_bytes: int = 0
    given_up: tuple[int, ...] = ()

    @property
    def remembers(self) -> bool:
        """Tells whether a device's work depends on what became of its update before."""
        return self.feedback or bool(self.train.personal)


OPTIONAL = ("clip", "feedback", "whole", "chain", "chain_bytes", "trunk", "trunk_bytes", "given_up")
"""Fields that a plan leaves out where nothing uses them."""


def encode_plan(plan: RoundPlan, sign: Callable[[bytes], bytes] | None = None) -> bytes:
    """Returns the plan as a frame without payload; what is not used takes no byte."""
    header = {name: value for name, value in asdict(plan).items() if value or name not in OPTIONAL}
    return encode_frame(Kind.PLAN, {**header, "train": train_json(plan.train)}, sign=sign)


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
        train=read_train(_object(header, "train")),
        deadline_s=float_field(header, "deadline_s", 0, 1e9),
        kind=choice_field(header, "kind", KINDS),
        scope=choice_field(header, "scope", ("tensor", "update")),
        stages=tuple(_list(header, "stages", MAX_STAGES)),
        envelope=_envelope(_object(header, "envelope")),
        clip=float_field({"clip": 0.0, **header}, "clip", 0, 1e9),
        feedback=flag_field(header, "feedback"),
        whole=_patterns(header),
        chain=digest_field({"chain": "", **header}, "chain", empty=True),
        chain_bytes=int_field({"chain_bytes": 0, **header}, "chain_bytes", 0, MAX_CHAIN_BYTES),
        trunk=digest_field({"trunk": "", **header}, "trunk", empty=True),
        trunk_bytes=int_field({"trunk_bytes": 0, **header}, "trunk_bytes", 0, MAX_BYTES),
        given_up=_rounds(header),
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


def _patterns(header: Mapping[str, Any]) -> tuple[str, ...]:
    found = header.get("whole", [])
    if not isinstance(found, list) or len(found) > MAX_PATTERNS:
        raise WireError(f"field 'whole' is not a list of at most {MAX_PATTERNS} patterns")
    return tuple(text_field({"whole": item}, "whole") for item in found)


def _rounds(header: Mapping[str, Any]) -> tuple[int, ...]:
    found = header.get("given_up", [])
    if not isinstance(found, list) or len(found) > MAX_GIVEN_UP:
        raise WireError(f"field 'given_up' is not a list of at most {MAX_GIVEN_UP} rounds")
    return tuple(int_field({"given_up": item}, "given_up", 0, MAX_ROUND) for item in found)


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
