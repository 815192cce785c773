"""Offers and reports on models: what comes back is what was said, and nothing else passes."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.messages.golden import GOLDEN
from tests.wire.messages.samples import FOUND, MADE, MODEL, OFFER, signed
from wire.errors import WireError
from wire.frame import Kind, decode_frame, encode_frame
from wire.messages.manifest import MANIFEST_BYTES
from wire.messages.rollout import (
    MODEL_PHASES,
    Found,
    ModelReport,
    Offer,
    decode_model_report,
    encode_model_report,
    encode_offer,
    read_offer,
)

DIGEST = st.integers(0, (1 << 256) - 1).map(lambda number: f"{number:064x}")
NAME, REASON = st.text("abc-", min_size=1, max_size=32), st.text("xyz é", max_size=400)
VERSION, MAYBE = st.integers(0, 1 << 53), st.none() | st.floats(0, 1e9)
OFFERS = st.builds(Offer, NAME, DIGEST, st.integers(1, MANIFEST_BYTES), st.integers(1, 1 << 53), NAME)
FINDINGS = st.builds(
    Found,
    variant=NAME,
    fits=st.booleans(),
    why=REASON,
    latency_ms=MAYBE,
    memory_bytes=st.none() | st.integers(0, 1 << 50),
    energy_mj=MAYBE,
    energy_source=st.text("rapl +-", max_size=100),
    accuracy=st.none() | st.floats(0, 1),
)
REPORTS = st.builds(
    ModelReport,
    phase=st.sampled_from(MODEL_PHASES),
    offered=VERSION,
    staged=VERSION,
    active=VERSION,
    healthy=VERSION,
    variant=st.just("") | NAME,
    bits=st.floats(0, 32),
    why=REASON,
    code=st.text("E-ABC", max_size=40),
    reason=REASON,
    found=st.lists(FINDINGS, max_size=3).map(tuple),
)


def offer_of(data: bytes) -> Offer:
    return read_offer(decode_frame(data, Kind.OFFER))


@given(OFFERS)
def test_offers_round_trip(offer):
    assert offer_of(encode_offer(offer)) == offer == offer_of(encode_offer(offer, signed))


@given(REPORTS)
def test_reports_round_trip(report):
    assert decode_model_report(encode_model_report(report)) == report


def test_golden_bytes():
    assert {name: MADE[name]().hex() for name in ("offer", "model")} == {n: GOLDEN[n] for n in ("offer", "model")}
    assert offer_of(bytes.fromhex(GOLDEN["offer"])) == OFFER
    assert decode_model_report(bytes.fromhex(GOLDEN["model"])) == MODEL


def test_long_texts_are_cut_and_do_not_cost_the_message():
    long = "x" * 5000
    said = replace(MODEL, why=long, reason=long, found=(replace(FOUND, why=long, energy_source=long),))
    heard = decode_model_report(encode_model_report(said))
    assert (heard.why, heard.reason, heard.found[0].why) == (long[:400], long[:400], long[:400])
    assert heard.found[0].energy_source == long[:100]


WRONG_OFFERS = {
    "rollout": ["", "A", None],
    "manifest": ["", "0" * 63, None],
    "size": [0, MANIFEST_BYTES + 1, 1.0],
    "version": [0, True, (1 << 53) + 1],
    "device": ["", "A", None],
}
WRONG_REPORTS = {
    "phase": ["", "happy", None],
    **{name: [-1, 1.5, True, (1 << 53) + 1, None] for name in ("offered", "staged", "active", "healthy")},
    "variant": [None, "x" * 33],
    "bits": [-1, 33, "4"],
    "why": [None, "x" * 401],
    "code": [None, "x" * 41],
    "reason": [1, "x" * 401],
    "found": [None, {}, [1], [{}] * 65, [{**asdict(FOUND), "fits": 1}], [{**asdict(FOUND), "variant": ""}]],
}
WRONG_FOUND = {
    "why": [None, "x" * 401],
    "latency_ms": [-1, "1", True],
    "memory_bytes": [-1, 1.5],
    "energy_mj": [-0.1],
    "energy_source": [None, "x" * 101],
    "accuracy": [1.5],
}


@pytest.mark.parametrize(("field", "value"), [(name, value) for name, all in WRONG_OFFERS.items() for value in all])
def test_wrong_offers(field, value):
    with pytest.raises(WireError, match=field):
        offer_of(encode_frame(Kind.OFFER, {**asdict(OFFER), field: value}))


@pytest.mark.parametrize(("field", "value"), [(name, value) for name, all in WRONG_REPORTS.items() for value in all])
def test_wrong_reports(field, value):
    with pytest.raises(WireError) as caught:
        decode_model_report(encode_frame(Kind.MODEL, {**asdict(MODEL), field: value}))
    assert caught.value.code == "E-FRAME"


@pytest.mark.parametrize(("field", "value"), [(name, value) for name, all in WRONG_FOUND.items() for value in all])
def test_wrong_findings(field, value):
    with pytest.raises(WireError, match=field):
        decode_model_report(encode_frame(Kind.MODEL, {**asdict(MODEL), "found": [{**asdict(FOUND), field: value}]}))


@pytest.mark.parametrize("field", list(asdict(MODEL)))
def test_every_field_of_a_report_is_needed(field):
    header = {name: value for name, value in asdict(MODEL).items() if name != field}
    with pytest.raises(WireError, match=field):
        decode_model_report(encode_frame(Kind.MODEL, header))


def test_a_report_of_before_there_were_meters_can_be_read():
    old = {name: value for name, value in asdict(FOUND).items() if name != "energy_source"}
    heard = decode_model_report(encode_frame(Kind.MODEL, {**asdict(MODEL), "found": [old]}))
    assert heard == replace(MODEL, found=(replace(FOUND, energy_source=""),))


def test_neither_has_a_payload_and_reports_are_bounded():
    with pytest.raises(WireError, match="payload"):
        offer_of(encode_frame(Kind.OFFER, asdict(OFFER), b"x"))
    with pytest.raises(WireError, match="payload"):
        decode_model_report(encode_frame(Kind.MODEL, asdict(MODEL), b"x"))
    with pytest.raises(WireError) as caught:
        decode_model_report(encode_frame(Kind.MODEL, {**asdict(MODEL), "more": "x" * 65536}))
    assert caught.value.code == "E-SIZE"
