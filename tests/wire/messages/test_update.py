"""Updates: header and tensors come back exactly; the bytes are pinned; headers are checked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.messages.golden import GOLDEN
from tests.wire.messages.samples import HEADER, MADE, PLAN, SIGNS, SPEC, STEP, UPDATE, plan_with, update_bytes
from wire.errors import WireError
from wire.frame import Kind, decode_frame, encode_frame
from wire.messages.update import (
    MAX_HEADER_BYTES,
    Update,
    UpdateHeader,
    decode_update,
    encode_update,
    read_header,
    update_codec,
)

METRICS = st.dictionaries(
    st.text("abc_", min_size=1, max_size=9),
    st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(1 << 60), 1 << 60) | st.text("abc", max_size=9),
    max_size=5,
)
HEADERS = st.builds(
    UpdateHeader,
    st.text("abc-", min_size=1, max_size=32),
    st.integers(0, 1 << 31),
    st.text("abc-", min_size=1, max_size=32),
    st.just("0f" * 32),
    st.sampled_from(["delta", "weights"]),
    st.integers(-(1 << 62), 1 << 62),
    METRICS,
)


@given(HEADERS)
def test_headers_round_trip(header):
    frame = decode_frame(encode_update(Update(header, STEP), PLAN, SPEC), Kind.UPDATE, MAX_HEADER_BYTES)
    assert read_header(frame) == header


@pytest.mark.parametrize("scope", ["tensor", "update"])
@pytest.mark.parametrize("levels", [None, 1, 7, 127, 128, 1024, 32768, 65535])
@pytest.mark.parametrize("share", [None, 0.2])
def test_tensors_decode_to_what_the_sender_sees(scope, levels, share):
    stages = [{"stage": "topk", "share": share}] if share else []
    stages += [{"stage": "levels", "levels": levels}] if levels else []
    plan = plan_with(stages, scope)
    frame = decode_frame(encode_update(UPDATE, plan, SPEC), Kind.UPDATE)
    codec = update_codec(plan, SPEC)
    own = codec.decode(memoryview(codec.encode(STEP, (plan.seed, plan.round, HEADER.device))))
    got = decode_update(frame, plan, SPEC)
    assert {name: value.tobytes() for name, value in got.items()} == {n: v.tobytes() for n, v in own.items()}
    if not stages:
        assert all(got[name].tobytes() == STEP[name].tobytes() for name in STEP)


def test_golden_bytes():
    assert MADE["update"]().hex() == GOLDEN["update"]
    frame = decode_frame(bytes.fromhex(GOLDEN["update"]), Kind.UPDATE)
    assert read_header(frame) == HEADER
    tensors = decode_update(frame, PLAN, SPEC)
    step = np.float32(2) / np.float32(7)
    assert tensors["w"].reshape(-1).tolist() == [-3 * step, -3 * step] + [0] * 9 + [3 * step]
    assert tensors["b"].tolist() == [0, 0, 0, 2]


def test_golden_signs():
    assert MADE["signs"]().hex() == GOLDEN["signs"]
    tensors = update_codec(plan_with(SIGNS), SPEC).decode(memoryview(bytes.fromhex(GOLDEN["signs"])))
    scale = float(np.float32((1 + float(STEP["w"][0, 1] * -1) + 1 + 2) / 4))
    assert tensors["w"].reshape(-1).tolist() == [-scale, -scale] + [0] * 9 + [scale]
    assert tensors["b"].tolist() == [0, 0, 0, scale]


def test_the_bits_are_named_by_seed_round_and_device():
    stages = [{"stage": "levels", "levels": 127}]
    plans = [plan_with(stages), replace(plan_with(stages), seed=8), replace(plan_with(stages), round=3)]
    updates = [UPDATE, UPDATE, UPDATE, Update(replace(HEADER, device="pi-5"), STEP)]
    payloads = [
        bytes(decode_frame(encode_update(update, plan, SPEC), Kind.UPDATE).payload)
        for update, plan in zip(updates, [*plans, plans[0]], strict=True)
    ]
    assert len(set(payloads)) == 4 and update_bytes(stages) == update_bytes(stages)


def header_with(**changes: object) -> bytes:
    header = dict(decode_frame(MADE["update"](), Kind.UPDATE).header)
    header.update(changes)
    return encode_frame(Kind.UPDATE, {name: value for name, value in header.items() if value is not ...})


LONG = {f"m{n}": n for n in range(65)}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("run", ""),
        ("run", ...),
        ("round", -1),
        ("round", True),
        ("device", "A"),
        ("device", "x" * 33),
        ("base", ""),
        ("kind", "x"),
        ("examples", 1.5),
        ("examples", 1 << 63),
        ("examples", None),
        ("metrics", []),
        ("metrics", ...),
        ("metrics", LONG),
        ("metrics", {"a": True}),
        ("metrics", {"a": None}),
        ("metrics", {"a": [1]}),
        ("metrics", {"a": 10**400}),
        ("metrics", {"a": -(10**4000)}),
        ("metrics", {"a": "x" * 201}),
        ("metrics", {"x" * 65: 1}),
    ],
)
def test_wrong_headers(field, value):
    with pytest.raises(WireError) as caught:
        read_header(decode_frame(header_with(**{field: value}), Kind.UPDATE))
    assert caught.value.code == "E-FRAME" and field.rstrip("s") in str(caught.value)


def test_metrics_that_json_cannot_say_are_not_encoded():
    broken = Update(replace(HEADER, metrics={"loss": float("nan")}), STEP)
    with pytest.raises(WireError, match="cannot be written"):
        encode_update(broken, PLAN, SPEC)
