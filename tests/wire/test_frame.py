"""Frames: what goes in comes out, and every wrongness has its code."""

from __future__ import annotations

import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.messages.golden import GOLDEN
from tests.wire.messages.samples import MADE
from wire.errors import BitfleetError, ConfigError, Refused, WireError
from wire.frame import MAX_DEPTH, Kind, decode_frame, encode_frame, peek_header
from wire.spec import canonical_json

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
HEADER = st.dictionaries(TEXT, VALUE, max_size=4)
FRAME = bytes.fromhex(GOLDEN["frame"])


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def raw(text: bytes, payload: bytes = b"", version: int = 1, kind: int = 7, flags: int = 0) -> bytes:
    return sealed(struct.pack("<4sBBHIQ", b"BFLT", version, kind, flags, len(text), len(payload)) + text + payload)


def code_of(data: bytes, kind: Kind = Kind.JOB, **more: int) -> str:
    with pytest.raises(WireError) as caught:
        decode_frame(data, kind, **more)
    return caught.value.code


@given(st.sampled_from(Kind), HEADER, st.binary(max_size=40))
def test_round_trip(kind, header, payload):
    frame = decode_frame(encode_frame(kind, header, payload), kind)
    assert (frame.kind, frame.header, bytes(frame.payload), frame.signature) == (kind, header, payload, None)


@given(HEADER, st.binary(max_size=40), st.binary(min_size=64, max_size=64))
def test_the_signature_covers_all_before_it(header, payload, signature):
    seen = []
    data = encode_frame(Kind.PLAN, header, payload, sign=lambda body: seen.append(body) or signature)
    frame = decode_frame(data, Kind.PLAN)
    assert frame.signature == signature
    assert bytes(frame.body) == seen[0] == data[:-68]


def test_golden_bytes():
    assert MADE["frame"]() == FRAME
    assert len(FRAME) == 20 + 27 + 3 + 4
    frame = decode_frame(FRAME, Kind.JOB)
    assert frame.header == {"a": None, "b": [1, 2.5, "é"]} and bytes(frame.payload) == b"\x01\x02\x03"


def test_a_view_is_decoded_like_bytes():
    assert decode_frame(memoryview(FRAME), Kind.JOB).header == decode_frame(FRAME, Kind.JOB).header


@pytest.mark.parametrize("size", range(len(FRAME)))
def test_every_truncation_is_refused(size):
    assert code_of(FRAME[:size]) == "E-FRAME"


def test_every_flipped_bit_is_noticed():
    for at in range(8 * len(FRAME)):
        data = bytearray(FRAME)
        data[at // 8] ^= 1 << at % 8
        assert code_of(bytes(data)) in ("E-CRC", "E-FRAME", "E-SIZE")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (sealed(b"BFLX" + FRAME[4:-4]), "E-FRAME"),
        (FRAME + b"\0", "E-FRAME"),
        (FRAME[:-1] + b"\0", "E-CRC"),
        (raw(b"{}", version=2), "E-VERSION"),
        (raw(b"{}", kind=1), "E-FRAME"),
        (raw(b"{}", kind=0), "E-FRAME"),
        (raw(b"{}", flags=2), "E-FRAME"),
        (raw(b"{}", flags=1), "E-FRAME"),
        (sealed(struct.pack("<4sBBHIQ", b"BFLT", 1, 7, 0, 2, 1 << 63) + b"{}"), "E-FRAME"),
        (sealed(struct.pack("<4sBBHIQ", b"BFLT", 1, 7, 0, (1 << 20) + 1, 0) + b"{}"), "E-SIZE"),
    ],
)
def test_wrong_envelopes(data, code):
    assert code_of(data) == code


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"1",
        b'"a"',
        b"null",
        b"{",
        b"{} ",
        b' {"a":1}',
        b'{"a": 1}',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":1.50}',
        b'{"a":1e0}',
        b'{"a":01}',
        b'{"a":"\\u00e9"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        "{}".encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}",
    ],
)
def test_wrong_headers(text):
    assert code_of(raw(text)) == "E-FRAME"


def test_headers_are_at_most_so_deep():
    deepest = b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH
    assert decode_frame(raw(deepest), Kind.JOB)
    assert code_of(raw(b'{"a":' + deepest + b"}")) == "E-FRAME"
    assert code_of(raw(b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}")) == "E-FRAME"


@pytest.mark.parametrize("depth", range(100, 1000, 7))
def test_no_depth_reaches_the_interpreters_limit(depth):
    assert code_of(raw(b'{"a":' + b"[" * depth + b"]" * depth + b"}")) == "E-FRAME"


def test_the_header_limit_is_the_callers():
    assert code_of(raw(b'{"a":"123456789"}'), max_header_bytes=16) == "E-SIZE"
    assert decode_frame(raw(b'{"a":"12345678"}'), Kind.JOB, max_header_bytes=16)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", object(), "\ud800"])
def test_what_json_cannot_say_is_not_encoded(value):
    with pytest.raises(WireError, match="cannot be written"):
        encode_frame(Kind.JOB, {"a": value})


@given(HEADER)
def test_canonical_json_is_its_own_canonical_form(header):
    assert canonical_json(json.loads(canonical_json(header))) == canonical_json(header)


def test_peek_reads_a_damaged_frame_and_believes_nothing_else():
    assert peek_header(FRAME[:-1] + b"\0") == {"a": None, "b": [1, 2.5, "é"]}
    assert peek_header(FRAME[:-1]) is None
    assert peek_header(b"") is None
    assert peek_header(raw(b"[]")) is None
    assert peek_header(raw(b'{"a":1}'), max_header_bytes=3) is None


def test_errors_say_code_message_and_remedy():
    assert str(WireError("no", code="E-CRC", remedy="send it again")) == "E-CRC: no; send it again"
    assert str(ConfigError("no")) == "E-CONFIG: no"
    assert issubclass(Refused, WireError) and issubclass(WireError, BitfleetError)
