"""States, asks and receipts: what comes back is what was said, and nothing else passes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.messages.golden import GOLDEN
from tests.wire.messages.samples import ASK, MADE, RECEIPT, STATE
from wire.errors import BitfleetError, WireError
from wire.frame import Kind, decode_frame, encode_frame
from wire.messages.plan import MAX_BYTES, MAX_ROUND
from wire.messages.reports import (
    STATES,
    VERDICTS,
    Ask,
    DeviceState,
    Receipt,
    decode_ask,
    decode_state,
    encode_ask,
    encode_receipt,
    encode_state,
    read_receipt,
)

NAME = st.text("abc-", min_size=1, max_size=32)
DIGEST = st.integers(0, (1 << 256) - 1).map(lambda number: f"{number:064x}")
EDGES = st.sets(st.integers(0, MAX_BYTES), max_size=12).map(sorted)
SPANS = EDGES.map(lambda edges: tuple(zip(edges[::2], edges[1::2], strict=False)))
CODE, REASON = st.text("E-ABC", max_size=40), st.text("xyz é", max_size=400)
ROUND = st.integers(-1, MAX_ROUND)
STATE_ = st.builds(
    DeviceState, st.sampled_from(STATES), st.integers(0, 1 << 53), st.just("") | NAME, ROUND, CODE, REASON
)
ASK_ = st.builds(
    Ask,
    st.sampled_from(["blob", "update", "decline"]),
    st.just("") | DIGEST,
    st.just("") | NAME,
    ROUND,
    st.integers(0, MAX_BYTES),
    SPANS,
    st.integers(0, MAX_BYTES),
    CODE,
    REASON,
)
RECEIPT_ = st.builds(
    Receipt,
    DIGEST,
    NAME,
    st.integers(0, MAX_ROUND),
    st.sampled_from(VERDICTS),
    CODE,
    REASON,
    SPANS,
)


def receipt_of(data: bytes) -> Receipt:
    return read_receipt(decode_frame(data, Kind.RECEIPT))


@given(STATE_)
def test_states_round_trip(state):
    assert decode_state(encode_state(state)) == state


@given(ASK_)
def test_asks_round_trip(ask):
    assert decode_ask(encode_ask(ask)) == ask


@given(RECEIPT_)
def test_receipts_round_trip(receipt):
    assert receipt_of(encode_receipt(receipt)) == receipt


def test_golden_bytes():
    assert {name: MADE[name]().hex() for name in ("state", "ask", "receipt")} == {
        name: GOLDEN[name] for name in ("state", "ask", "receipt")
    }
    assert decode_state(bytes.fromhex(GOLDEN["state"])) == STATE
    assert decode_ask(bytes.fromhex(GOLDEN["ask"])) == ASK
    assert receipt_of(bytes.fromhex(GOLDEN["receipt"])) == RECEIPT


def test_what_is_ordinary_is_left_out():
    assert decode_frame(encode_ask(Ask("update")), Kind.ASK).header == {"what": "update"}
    assert decode_frame(encode_state(DeviceState("idle", 0)), Kind.STATE).header == {"state": "idle"}


def test_a_long_reason_is_cut_and_does_not_cost_the_message():
    long = "x" * 5000
    assert decode_state(encode_state(DeviceState("idle", 1, reason=long))).reason == long[:400]
    assert decode_ask(encode_ask(Ask("decline", reason=long))).reason == long[:400]
    assert receipt_of(encode_receipt(Receipt("0" * 64, "r", 1, "refused", reason=long))).reason == long[:400]


COMMON = [("round", -2), ("round", 1.0), ("round", True), ("round", MAX_ROUND + 1), ("code", "x" * 41), ("reason", 1)]
COMMON += [("run", value) for value in ([], {}, 0, False, None, "A", "x" * 33)] + [("reason", "x" * 401)]
WRONG_SPANS = [("spans", value) for value in (None, {}, [1], [[1]], [[1, 1]], [[2, 1]], [[-1, 1]], [[0, 2], [1, 3]])]
WRONG_SPANS += [("spans", value) for value in ([[0, 2], [2, 3]], [[0, True]], [[0, 1.0]], [["0", "1"]], [[0, 1, 2]])]
WRONG_SPANS += [("spans", [[0, MAX_BYTES + 1]]), ("spans", [[2 * n, 2 * n + 1] for n in range(1025)])]


def refused(kind: Kind, good: bytes, field: str, value: object) -> BitfleetError:
    decode = {Kind.STATE: decode_state, Kind.ASK: decode_ask, Kind.RECEIPT: receipt_of}[kind]
    with pytest.raises(WireError) as caught:
        decode(encode_frame(kind, {**decode_frame(good, kind).header, field: value}))
    return caught.value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *COMMON,
        ("state", ""),
        ("state", "happy"),
        ("state", None),
        ("session", -1),
        ("session", 1.5),
        ("session", 1 << 54),
    ],
)
def test_wrong_states(field, value):
    assert refused(Kind.STATE, MADE["state"](), field, value).code == "E-FRAME"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *COMMON,
        *WRONG_SPANS,
        ("what", ""),
        ("what", "all"),
        ("digest", "x"),
        *((name, value) for name in ("total", "piece_bytes") for value in (-1, MAX_BYTES + 1)),
        ("piece_bytes", 1024.0),
    ],
)
def test_wrong_asks(field, value):
    assert refused(Kind.ASK, MADE["ask"](), field, value).code == "E-FRAME"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *COMMON,
        *WRONG_SPANS,
        ("run", ""),
        ("round", -1),
        ("digest", ""),
        ("verdict", "maybe"),
        ("verdict", None),
    ],
)
def test_wrong_receipts(field, value):
    assert refused(Kind.RECEIPT, MADE["receipt"](), field, value).code == "E-FRAME"


@pytest.mark.parametrize(
    ("kind", "decode"), [(Kind.STATE, decode_state), (Kind.ASK, decode_ask), (Kind.RECEIPT, receipt_of)]
)
def test_reports_have_no_payload(kind, decode):
    good = {Kind.STATE: "state", Kind.ASK: "ask", Kind.RECEIPT: "receipt"}[kind]
    header = decode_frame(MADE[good](), kind).header
    with pytest.raises(WireError, match="payload"):
        decode(encode_frame(kind, header, b"x"))


def test_headers_are_bounded():
    for kind, decode, size in ((Kind.STATE, decode_state, 4096), (Kind.ASK, decode_ask, 64 * 1024)):
        with pytest.raises(WireError) as caught:
            decode(encode_frame(kind, {"x": "y" * size}))
        assert caught.value.code == "E-SIZE"
