"""Blobs: models on their way down, named by the SHA-256 of their bytes.

A snapshot holds the values themselves; a delta holds the difference to the model `source`, through the same stages as
an update. `target` is the digest of the result, so that a device can check what it built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wire.errors import WireError
from wire.frame import Kind, decode_frame, encode_frame
from wire.messages.fields import choice_field, digest_field
from wire.messages.plan import MAX_STAGES, BlobRef
from wire.params import Params, add, check_shapes, delta, params_digest
from wire.spec import ModelSpec
from wire.stages.tensors import SCOPES, Codec

__all__ = [
    "Downlink",
    "apply_blob",
    "delta_blob",
    "digest_bytes",
    "read_snapshot",
    "read_trunk",
    "snapshot_blob",
    "trunk_blob",
]


@dataclass(frozen=True, slots=True)
class Downlink:
    """How a delta is coded on its way down; without stages the coordinator sends snapshots."""

    stages: tuple[Mapping[str, Any], ...] = ()
    scope: str = "update"


def digest_bytes(data: bytes | memoryview) -> str:
    """Returns the SHA-256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def snapshot_blob(params: Params, spec: ModelSpec) -> tuple[BlobRef, bytes]:
    """Returns a blob that holds the float32 values, and its reference."""
    payload = Codec.of(spec.trainable, (), "update").encode(params)
    return _sealed({"source": "", "target": params_digest(params), "scope": "update", "stages": []}, payload)


def delta_blob(
    wanted: Params, held: Params, spec: ModelSpec, down: Downlink, key: Sequence[object]
) -> tuple[BlobRef, bytes, Params]:
    """Returns a blob that leads from `held` towards `wanted`, its reference, and the model where it really leads."""
    codec = Codec.of(spec.trainable, down.stages, down.scope)
    payload = codec.encode(delta(wanted, held), key)
    reached = add(held, codec.decode(memoryview(payload)))
    header = {
        "source": params_digest(held),
        "target": params_digest(reached),
        "scope": down.scope,
        "stages": [dict(stage) for stage in down.stages],
    }
    ref, data = _sealed(header, payload)
    return ref, data, reached


def apply_blob(data: bytes, ref: BlobRef, spec: ModelSpec, held: Params | None) -> Params:
    """Returns the model that the blob leads to from `held`; raises WireError unless digests, start and end fit."""
    if digest_bytes(data) != ref.digest:
        raise WireError(f"blob {ref.digest[:12]} holds other bytes", code="E-BLOB", remedy="fetch it again")
    frame = decode_frame(data, Kind.BLOB)
    source, scope = digest_field(frame.header, "source", empty=True), choice_field(frame.header, "scope", SCOPES)
    stages = frame.header.get("stages")
    if not isinstance(stages, list) or len(stages) > MAX_STAGES or not all(isinstance(item, dict) for item in stages):
        raise WireError(f"field 'stages' is not a list of at most {MAX_STAGES} objects")
    params = Codec.of(spec.trainable, stages, scope).decode(frame.payload)
    if source:
        if held is None or params_digest(held) != source:
            raise WireError(f"blob {ref.digest[:12]} starts from another model than {source[:12]}", code="E-BLOB")
        params = _moved(held, params, spec)
    if params_digest(params) != ref.target:
        raise WireError(f"blob {ref.digest[:12]} leads to another model than {ref.target[:12]}", code="E-BLOB")
    return params


def read_snapshot(data: bytes, digest: str, spec: ModelSpec) -> Params:
    """Returns the model in a snapshot's bytes; raises WireError unless its values have this digest."""
    frame = decode_frame(data, Kind.BLOB)
    params = Codec.of(spec.trainable, (), "update").decode(frame.payload)
    if params_digest(params) != digest:
        raise WireError(f"the file of model {digest[:12]} holds another model", code="E-BLOB")
    return params


def trunk_blob(still: Params, spec: ModelSpec) -> bytes:
    """Returns the blob with the frozen tensors of a net that do not come from its seed."""
    return encode_frame(Kind.BLOB, {"trunk": True}, Codec.of(spec.frozen, (), "update").encode(still))


def read_trunk(data: bytes, digest: str, spec: ModelSpec) -> Params:
    """Returns the frozen tensors in a trunk's bytes; raises WireError unless they are what the digest names."""
    if digest_bytes(data) != digest:
        raise WireError(f"trunk {digest[:12]} holds other bytes", code="E-BLOB", remedy="fetch it again")
    return Codec.of(spec.frozen, (), "update").decode(decode_frame(data, Kind.BLOB).payload)


def _moved(held: Params, change: Params, spec: ModelSpec) -> Params:
    check_shapes(held, spec.trainable)
    with np.errstate(over="ignore"):
        params = add(held, change)
    if not all(np.isfinite(tensor).all() for tensor in params.values()):
        raise WireError("the model that the blob leads to is not finite", code="E-NONFINITE")
    return params


def _sealed(header: Mapping[str, Any], payload: bytes) -> tuple[BlobRef, bytes]:
    data = encode_frame(Kind.BLOB, header, payload)
    return BlobRef(digest_bytes(data), len(data), str(header["source"]), str(header["target"])), data
