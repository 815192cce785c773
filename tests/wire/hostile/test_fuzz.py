"""Hostile bytes: only our own errors come out, with documented codes, and memory stays bounded."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.hostile.mutations import damaged, pick, sealed
from tests.wire.messages.samples import (
    ASK,
    DELTA,
    DELTA_REF,
    HELD,
    MADE,
    PLAN,
    RECEIPT,
    SIGNS,
    SNAPSHOT,
    SPEC,
    STATE,
    STEP,
    plan_with,
    update_bytes,
)
from wire.bits import Bits
from wire.errors import BitfleetError, ConfigError, WireError
from wire.frame import Kind, decode_frame, peek_header
from wire.messages.blob import apply_blob, digest_bytes, read_snapshot, read_trunk, trunk_blob
from wire.messages.chain import decode_chain, encode_chain
from wire.messages.golden import decode_golden
from wire.messages.manifest import MANIFEST_BYTES, encode_manifest, read_manifest
from wire.messages.plan import BlobRef, RoundPlan, decode_plan, encode_plan, shortest_path
from wire.messages.reports import decode_ask, decode_state, encode_ask, encode_receipt, encode_state, read_receipt
from wire.messages.rollout import ModelReport, decode_model_report, encode_model_report, encode_offer, read_offer
from wire.messages.update import MAX_HEADER_BYTES, decode_update, read_header, update_codec
from wire.pieces.chunks import Spans, decode_chunk
from wire.spec import ModelSpec, TensorSpec

CODES = {"E-FRAME", "E-CRC", "E-VERSION", "E-SIZE", "E-TENSORS", "E-SHAPE", "E-LEVELS", "E-SCALE", "E-INDEX"}
CODES |= {"E-NONFINITE", "E-BLOB", "E-CONFIG"}
LEVELS, TOPK = {"stage": "levels", "levels": 7}, {"stage": "topk", "share": 0.5}
PLANS = [
    plan_with(stages, scope) for scope in ("update", "tensor") for stages in ([], [LEVELS], [TOPK], [TOPK, LEVELS])
]
PLANS += [plan_with(SIGNS, scope) for scope in ("update", "tensor")]
UPDATES = [update_bytes(list(plan.stages), plan.scope) for plan in PLANS]
AHEAD = replace(DELTA_REF, source=DELTA_REF.target, target="e" * 64)
STILL = replace(SPEC, trainable=(), frozen=SPEC.trainable)
SOME = list(enumerate(UPDATES))[1::2]  # levels, with and without top-k, in both scopes


def take_frame(data: bytes, bits: Bits) -> None:
    peek_header(data)
    decode_frame(data, tuple(Kind)[pick(bits, len(Kind))], 1 << 10)


def take_plan(data: bytes, bits: Bits) -> None:
    plan = decode_plan(data)
    codec = update_codec(plan, SPEC)
    codec.decode(memoryview(codec.encode(HELD, (plan.seed,), HELD)))
    shortest_path(plan.blobs, [plan.initial], plan.base, [])
    assert decode_plan(encode_plan(plan)) == plan


def take_update(data: bytes, plan: RoundPlan) -> None:
    frame = decode_frame(data, Kind.UPDATE, MAX_HEADER_BYTES)
    read_header(frame)
    most = update_codec(plan, SPEC).most_bytes
    decode_update(frame, plan, SPEC)
    assert len(frame.payload) <= most


def take_blob(data: bytes, bits: Bits) -> None:
    """The digest is right for the bytes, as a hostile coordinator would make it; only the end is left to be wrong."""
    ends = ["0" * 64, PLAN.base]
    apply_blob(data, BlobRef(digest_bytes(data), max(1, len(data)), "", ends[pick(bits, 2)]), SPEC, HELD)


def take_chain(data: bytes, bits: Bits) -> None:
    refs = decode_chain(data)
    assert encode_chain(refs) == data
    shortest_path(refs, [DELTA_REF.source], AHEAD.target, [])


def take_trunk(data: bytes, bits: Bits) -> None:
    read_trunk(data, digest_bytes(data), STILL)


def take_manifest(data: bytes, bits: Bits) -> None:
    manifest = read_manifest(decode_frame(data, Kind.MANIFEST, MANIFEST_BYTES))
    again = encode_manifest(manifest, lambda body: bytes(64))
    assert read_manifest(decode_frame(again, Kind.MANIFEST)) == manifest


def take_offer(data: bytes, bits: Bits) -> None:
    offer = read_offer(decode_frame(data, Kind.OFFER))
    assert read_offer(decode_frame(encode_offer(offer), Kind.OFFER)) == offer


def take_model(data: bytes, bits: Bits) -> None:
    report = decode_model_report(data)
    assert decode_model_report(encode_model_report(report)) == report


def take_golden(data: bytes, bits: Bits) -> None:
    inputs, outputs = decode_golden(data)
    assert 4 * (inputs.size + sum(rows.size for rows in outputs.values())) < len(data)


def take_chunk(data: bytes, bits: Bits) -> None:
    chunk = decode_chunk(data, 1 << 20)
    spans = Spans(chunk.total)
    spans.add(chunk.offset, chunk.offset + len(chunk.data))
    assert spans.held[0][1] <= chunk.total <= 1 << 20


@dataclass(frozen=True)
class Target:
    seeds: list[bytes]
    take: Callable[[bytes, Bits], object]
    framed: bool = True


TARGETS = {
    "frame": Target([MADE["frame"](), *UPDATES[:1]], take_frame),
    "plan": Target([encode_plan(plan) for plan in PLANS], take_plan),
    **{f"update {n}": Target([update], lambda data, bits, n=n: take_update(data, PLANS[n])) for n, update in SOME},
    "blob": Target([SNAPSHOT, DELTA], take_blob),
    "snapshot": Target([SNAPSHOT], lambda data, bits: read_snapshot(data, PLAN.base, SPEC)),
    "chain": Target([encode_chain([DELTA_REF, AHEAD])], take_chain, framed=False),
    "trunk": Target([trunk_blob(STEP, STILL)], take_trunk),
    "ask": Target([encode_ask(ASK)], lambda data, bits: encode_ask(decode_ask(data))),
    "state": Target([encode_state(STATE)], lambda data, bits: encode_state(decode_state(data))),
    "receipt": Target(
        [encode_receipt(RECEIPT)],
        lambda data, bits: encode_receipt(read_receipt(decode_frame(data, Kind.RECEIPT))),
    ),
    "manifest": Target([MADE["manifest"]()], take_manifest),
    "offer": Target([MADE["offer"]()], take_offer),
    "model": Target([MADE["model"](), encode_model_report(ModelReport())], take_model),
    "golden": Target([MADE["golden"]()], take_golden),
    "piece": Target([MADE["piece"]()], take_chunk, framed=False),
}


def outcome(target: Target, data: bytes, bits: Bits) -> str:
    """Returns the code of the refusal, or "taken"; anything but our own errors passes through and fails the test."""
    try:
        target.take(data, bits)
    except BitfleetError as error:
        assert isinstance(error, WireError | ConfigError)
        assert error.code in CODES
        return error.code
    return "taken"


def fuzz(name: str, cases: int) -> Counter[str]:
    target, bits, seen = TARGETS[name], Bits.of("fuzz", name, cases), Counter[str]()
    for _ in range(cases):
        seed = target.seeds[pick(bits, len(target.seeds))]
        data = damaged(seed, [*target.seeds, *UPDATES], bits, target.framed)
        try:
            seen[outcome(target, data, bits)] += 1
        except Exception as error:
            raise AssertionError(f"{name} let {error!r} out of {data.hex()}") from error
    return seen


def test_the_seeds_themselves_are_taken():
    for target in TARGETS.values():
        plain = {outcome(target, seed, Bits.of("seed", n)) for seed in target.seeds for n in range(40)}
        assert "taken" in plain


@pytest.mark.parametrize("name", TARGETS)
def test_mutations(name):
    seen = fuzz(name, 3000)
    assert len(seen) >= 3, f"the mutations reach too little: {seen}"


@pytest.mark.long
@pytest.mark.parametrize("name", TARGETS)
def test_many_mutations(name):
    assert len(fuzz(name, 100_000)) >= 3


def test_mutations_get_past_the_checksum():
    assert {"E-TENSORS", "E-SHAPE", "E-LEVELS", "E-SCALE", "E-INDEX", "taken"} <= set(fuzz("update 3", 3000))
    assert {"E-CONFIG", "E-BLOB", "E-FRAME", "taken"} <= set(fuzz("plan", 3000))


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.binary(max_size=200))
def test_noise(name, data):
    target = TARGETS[name]
    assert outcome(target, data, Bits(0)) in CODES | {"taken"}
    if target.framed:
        kind = target.seeds[0][5]
        assert outcome(target, sealed(kind, b"{}", data), Bits(0)) in CODES | {"taken"}
        assert outcome(target, sealed(kind, data, b""), Bits(0)) in CODES | {"taken"}


def large(kind: Kind) -> list[bytes]:
    """Returns inputs of up to 64 KiB that a careless decoder would unfold."""
    size = 60_000
    start = b"\x10\0\0\0"
    gaps = start + (size - 20).to_bytes(4, "little") + b"\2\0" + b"\xff" * (size - 22) + bytes(8)
    texts = [
        b"[" * size,
        b'{"a":' * (size // 5),
        b'{"a":[' + b"{}," * (size // 3) + b"{}]}",
        b'{"a":' + b"9" * size + b"}",
    ]
    return [sealed(kind, text, b"") for text in texts] + [
        sealed(kind, b"{}", b"\xff" * size),
        sealed(kind, bytes(UPDATES[0][20 : 20 + UPDATES[0][8]]), gaps),
        b"BFLT\1" + bytes([kind]) + b"\0\0" + b"\xff" * 12 + bytes(size),
    ]


@pytest.mark.parametrize("name", TARGETS)
def test_memory_is_bounded(name):
    target, bits = TARGETS[name], Bits.of("memory", name)
    inputs = [damaged(target.seeds[0], target.seeds, bits, target.framed) for _ in range(200)]
    inputs += large(Kind(target.seeds[0][5])) if target.framed else [bytes(32) + b"\xff" * 40]
    outcome(target, target.seeds[0], bits)
    tracemalloc.start()
    try:
        for data in inputs:
            outcome(target, data, bits)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_a_hostile_plan_does_not_make_work():
    """Sizes and counts that a device would have to believe are only numbers until its own gate has seen them."""
    wide = [{"stage": "topk", "share": 1.0}] * 8
    plan = decode_plan(encode_plan(plan_with(wide)))
    assert len(update_codec(plan, SPEC).chain.stages) == 8
    big = ModelSpec("x", (1,), 1, 1, (TensorSpec("w", ((1 << 32) - 1,)),))
    for stages in ([], [LEVELS], [TOPK, LEVELS], wide):
        codec = update_codec(plan_with(stages), big)
        assert codec.most_bytes < 1 << 36
        with pytest.raises(WireError):
            codec.decode(memoryview(UPDATES[0][-80:-4]))
