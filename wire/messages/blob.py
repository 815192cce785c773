"""Blobs: models on their way down, named by the SHA-256 of their bytes.

A snapshot holds the values themselves; a delta holds the difference to the model `source`, through the same stages as
an update. `target` is the digest of the result, so that a device can check what it built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wire.errors import WireError
from wire.fields import choice_field, digest_field
from wire.frame import Kind, decode_frame, encode_frame
from wire.messages.plan import BlobRef
from wire.params import Params, add, delta, params_digest
from wire.spec import ModelSpec
from wire.stages.tensors import SCOPES, Codec

__all__ = ["Downlink", "apply_blob", "delta_blob", "digest_bytes", "shortest_path", "snapshot_blob"]


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
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        raise WireError("field 'stages' is not a list of objects")
    params = Codec.of(spec.trainable, stages, scope).decode(frame.payload)
    if source:
        if held is None or params_digest(held) != source:
            raise WireError(f"blob {ref.digest[:12]} starts from another model than {source[:12]}", code="E-BLOB")
        params = add(held, params)
    if params_digest(params) != ref.target:
        raise WireError(f"blob {ref.digest[:12]} leads to another model than {ref.target[:12]}", code="E-BLOB")
    return params


def shortest_path(blobs: Iterable[BlobRef], held: Iterable[str], goal: str, cached: Iterable[str]) -> list[BlobRef]:
    """Returns the blobs, in order, that lead to `goal` from nothing or a held model with the fewest bytes to fetch."""
    owned, refs = set(cached), list(blobs)
    cost: dict[str, tuple[int, list[BlobRef]]] = {"": (0, []), **{digest: (0, []) for digest in held}}
    for _ in range(len(refs) + 1):
        changed = False
        for ref in refs:
            if ref.source not in cost:
                continue
            spent, path = cost[ref.source]
            total = spent + (0 if ref.digest in owned else ref.size)
            if ref.target not in cost or total < cost[ref.target][0]:
                cost[ref.target], changed = (total, [*path, ref]), True
        if not changed:
            break
    if goal not in cost:
        raise WireError(f"no blob of the plan leads to model {goal[:12]}", code="E-BLOB")
    return cost[goal][1]


def _sealed(header: Mapping[str, Any], payload: bytes) -> tuple[BlobRef, bytes]:
    data = encode_frame(Kind.BLOB, header, payload)
    return BlobRef(digest_bytes(data), len(data), str(header["source"]), str(header["target"])), data
