"""Blobs: they lead exactly where they say, from exactly where they say, or not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.wire.messages.golden import GOLDEN
from tests.wire.messages.samples import (
    DELTA,
    DELTA_REF,
    DOWN,
    HELD,
    MADE,
    REACHED,
    SNAPSHOT,
    SNAPSHOT_REF,
    SPEC,
    STEP,
    WANTED,
    ZERO,
)
from wire.errors import BitfleetError, ConfigError, WireError
from wire.frame import Kind, decode_frame, encode_frame
from wire.messages.blob import Downlink, apply_blob, delta_blob, digest_bytes, read_snapshot
from wire.messages.plan import MAX_STAGES, BlobRef
from wire.params import Params, params_digest
from wire.spec import ModelSpec, TensorSpec
from wire.stages.tensors import Codec

LEVELS = {"stage": "levels", "levels": 3}


def same(one: Params, other: Params) -> bool:
    return params_digest(one) == params_digest(other)


def made(header: dict[str, object], payload: bytes) -> tuple[BlobRef, bytes]:
    """Returns a blob as a hostile coordinator may seal it: every digest right for what it claims."""
    data = encode_frame(
        Kind.BLOB, {"source": "", "target": "0" * 64, "scope": "update", "stages": []} | header, payload
    )
    return BlobRef(digest_bytes(data), len(data), "", str(header.get("target", "0" * 64))), data


def refusal(ref: BlobRef, data: bytes, held: Params | None = None, spec: ModelSpec = SPEC) -> BitfleetError:
    with pytest.raises(BitfleetError) as caught:
        apply_blob(data, ref, spec, held)
    return caught.value


def test_a_snapshot_is_exact():
    assert same(apply_blob(SNAPSHOT, SNAPSHOT_REF, SPEC, None), HELD)
    assert same(read_snapshot(SNAPSHOT, params_digest(HELD), SPEC), HELD)
    assert (SNAPSHOT_REF.digest, SNAPSHOT_REF.size) == (digest_bytes(SNAPSHOT), len(SNAPSHOT))
    assert (SNAPSHOT_REF.source, SNAPSHOT_REF.target) == ("", params_digest(HELD))


@pytest.mark.parametrize("scope", ["tensor", "update"])
@pytest.mark.parametrize("stages", [(), (LEVELS,), ({"stage": "topk", "share": 0.3}, LEVELS)])
def test_a_delta_leads_where_the_coordinator_says(stages, scope):
    ref, data, reached = delta_blob(WANTED, HELD, SPEC, Downlink(stages, scope), (1, 2))
    assert same(apply_blob(data, ref, SPEC, HELD), reached)
    assert (ref.source, ref.target) == (params_digest(HELD), params_digest(reached))
    assert same(reached, WANTED) == (not stages)


def test_golden_bytes():
    assert MADE["snapshot"]().hex() == GOLDEN["snapshot"]
    assert MADE["delta"]().hex() == GOLDEN["delta"]
    assert same(apply_blob(bytes.fromhex(GOLDEN["delta"]), DELTA_REF, SPEC, HELD), REACHED)


def test_other_bytes_another_start_and_another_end_are_refused():
    assert refusal(DELTA_REF, DELTA[:-1] + b"\0", HELD).code == "E-BLOB"
    assert refusal(DELTA_REF, DELTA, None).code == "E-BLOB"
    assert refusal(DELTA_REF, DELTA, ZERO).code == "E-BLOB"
    assert refusal(replace(DELTA_REF, target="0" * 64), DELTA, HELD).code == "E-BLOB"
    with pytest.raises(WireError) as caught:
        read_snapshot(SNAPSHOT, params_digest(ZERO), SPEC)
    assert caught.value.code == "E-BLOB"


@pytest.mark.parametrize(
    "header",
    [
        {"source": "x"},
        {"source": None},
        {"scope": "net"},
        {"stages": {}},
        {"stages": [1]},
        {"stages": None},
        {"stages": [{"stage": "topk", "share": 1}] * (MAX_STAGES + 1)},
    ],
)
def test_wrong_headers(header):
    error = refusal(*made(header, bytes(SNAPSHOT[-80:-4])))
    assert isinstance(error, WireError) and error.code == "E-FRAME"


@pytest.mark.parametrize(
    "stage", [{}, {"stage": []}, {"stage": "levels", "levels": 2.5}, {"stage": "topk", "share": "x"}]
)
def test_hostile_stages_are_a_config_error(stage):
    assert isinstance(refusal(*made({"stages": [stage]}, b"")), ConfigError)


def test_a_blob_of_another_spec_is_refused():
    other = ModelSpec("tiny", (3,), 4, 5, (TensorSpec("v", (16,)),))
    payload = Codec.of(other.trainable, (), "update").encode({"v": np.ones(16, np.float32)})
    error = refusal(*made({"source": params_digest(HELD)}, payload), HELD, other)
    assert error.code == "E-TENSORS"
    reshaped = ModelSpec("tiny", (3,), 4, 5, (TensorSpec("w", (12,)), TensorSpec("b", (1, 4))))
    assert refusal(*made({"source": params_digest(HELD)}, SNAPSHOT[-80:-4]), HELD, reshaped).code == "E-SHAPE"


def test_a_sum_past_float32_is_refused():
    most = {name: np.full_like(value, np.finfo(np.float32).max) for name, value in HELD.items()}
    payload = Codec.of(SPEC.trainable, (), "update").encode(most)
    assert refusal(*made({"source": params_digest(most)}, payload), most).code == "E-NONFINITE"


def test_deltas_chain():
    first, one, reached = delta_blob(HELD, ZERO, SPEC, DOWN, (1,))
    second, two, end = delta_blob(WANTED, reached, SPEC, DOWN, (2,))
    assert same(apply_blob(two, second, SPEC, apply_blob(one, first, SPEC, ZERO)), end)
    assert decode_frame(two, Kind.BLOB).header["source"] == first.target
    assert all(np.abs(end[name] - WANTED[name]).max() <= np.abs(STEP[name]).max() for name in STEP)
