"""The manifest of an exported model: its variants by content, what they must answer, and who says so.

A frame of kind MANIFEST: its header is the manifest as canonical JSON, its signature is by the model key, which is not
the key of plans. `version` only grows, and a device never goes below the highest it has accepted: going back is a new
version that names older content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from wire.errors import WireError
from wire.frame import Frame, Kind, encode_frame
from wire.messages.fields import (
    choice_field,
    digest_field,
    float_field,
    id_field,
    int_field,
    known_field,
    list_field,
    objects_field,
    text_field,
)
from wire.messages.plan import MAX_BYTES

__all__ = [
    "MANIFEST_BYTES",
    "MOST_VARIANTS",
    "PROFILES",
    "Manifest",
    "Measured",
    "Variant",
    "encode_manifest",
    "key_id",
    "read_manifest",
]

MANIFEST_BYTES = 256 * 1024
"""More than this is not read."""
PROFILES = ("int8", "float")
MOST_VARIANTS = 64
_MOST_LABELS = 4096
_MOST_OPERATORS = 64
_MOST_SIDES = 8
_LATEST_S = 1 << 36


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a variant on the machine named `on`; None is unknown."""

    on: str
    accuracy: float | None = None
    examples: int = 0
    latency_ms: float | None = None
    load_ms: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Variant:
    """One file: `bits` a weight on average; its answers to the golden inputs may be off by `tolerance` at most.

    With a `bundle` the file can also be cut from the first `prefix` bytes of that blob.
    """

    name: str
    profile: str
    bits: float
    digest: str
    size: int
    operators: tuple[str, ...]
    min_runtime: str
    tolerance: float
    measured: Measured
    bundle: str = ""
    prefix: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version of a fleet's model. `golden` is the blob of inputs and expected outputs, see golden.py.

    `content` names the weights that all variants were made of; `lineage` says how they were trained.
    """

    fleet: str
    model: str
    version: int
    content: str
    created_s: int
    expires_s: int
    key: str
    input: tuple[int, ...]
    outputs: int
    labels: tuple[str, ...]
    preprocessing: str
    lineage: Mapping[str, Any]
    golden: str
    golden_bytes: int
    variants: tuple[Variant, ...]
    parent: int = 0


def key_id(public: str) -> str:
    """Returns the short name of a public key given in hex."""
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()[:16]


def encode_manifest(manifest: Manifest, sign: Callable[[bytes], bytes]) -> bytes:
    """Returns the signed manifest."""
    return encode_frame(Kind.MANIFEST, asdict(manifest), sign=sign)


def read_manifest(frame: Frame) -> Manifest:
    """Returns the manifest in a decoded frame, every field checked."""
    header = frame.header
    if len(frame.payload):
        raise WireError(f"a manifest has no payload, this one has {len(frame.payload)} bytes")
    lineage = header.get("lineage")
    if not isinstance(lineage, dict):
        raise WireError("field 'lineage' is not an object")
    variants = tuple(_variant(item) for item in objects_field(header, "variants", 1, MOST_VARIANTS))
    if len({variant.name for variant in variants}) < len(variants):
        raise WireError("two variants of a manifest have the same name")
    return Manifest(
        fleet=id_field(header, "fleet"),
        model=id_field(header, "model"),
        version=int_field(header, "version", 1, 1 << 53),
        content=digest_field(header, "content"),
        created_s=int_field(header, "created_s", 0, _LATEST_S),
        expires_s=int_field(header, "expires_s", 1, _LATEST_S),
        key=text_field(header, "key", 16),
        input=list_field(header, "input", 1, _MOST_SIDES, lambda one: int_field(one, "input", 1, 1 << 24)),
        outputs=int_field(header, "outputs", 1, 1 << 24),
        labels=list_field(header, "labels", 0, _MOST_LABELS, lambda one: text_field(one, "labels")),
        preprocessing=text_field(header, "preprocessing", 1000),
        lineage=lineage,
        golden=digest_field(header, "golden"),
        golden_bytes=int_field(header, "golden_bytes", 1, 1 << 26),
        variants=variants,
        parent=int_field(header, "parent", 0, 1 << 53),
    )


def _variant(header: Mapping[str, Any]) -> Variant:
    bundle, prefix = digest_field(header, "bundle", empty=True), int_field(header, "prefix", 0, MAX_BYTES)
    if bool(bundle) != bool(prefix):
        raise WireError(f"field 'prefix' is {prefix}, and field 'bundle' {'names a blob' if bundle else 'is empty'}")
    return Variant(
        name=id_field(header, "name"),
        profile=choice_field(header, "profile", PROFILES),
        bits=float_field(header, "bits", 0.5, 32),
        digest=digest_field(header, "digest"),
        size=int_field(header, "size", 1, MAX_BYTES),
        operators=list_field(header, "operators", 0, _MOST_OPERATORS, lambda one: text_field(one, "operators")),
        min_runtime=text_field(header, "min_runtime", 20),
        tolerance=float_field(header, "tolerance", 0, 1e6),
        measured=_measured(header.get("measured")),
        bundle=bundle,
        prefix=prefix,
    )


def _measured(value: object) -> Measured:
    if not isinstance(value, dict):
        raise WireError("field 'measured' is not an object")
    return Measured(
        on=text_field(value, "on"),
        accuracy=known_field(value, "accuracy", 1.0),
        examples=int_field(value, "examples", 0, 1 << 40),
        latency_ms=known_field(value, "latency_ms", 1e9),
        load_ms=known_field(value, "load_ms", 1e9),
        memory_bytes=None if value.get("memory_bytes") is None else int_field(value, "memory_bytes", 0, 1 << 50),
    )
