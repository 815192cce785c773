"""Every wrongness of an update has its own code: from one good update, one change at a time."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from tests.wire.hostile.mutations import PREFIX_BYTES, resealed, sealed
from tests.wire.messages.samples import SIGNS, SPEC, plan_with, update_bytes
from wire.errors import WireError
from wire.frame import Kind, decode_frame
from wire.messages.update import MAX_HEADER_BYTES, decode_update, read_header

STAGES = {
    "plain": [],
    "levels": [{"stage": "levels", "levels": 6}],  # 13 symbols in 4 bits: three bit patterns mean nothing
    "mask": [{"stage": "topk", "share": 0.25}],
    "signs": SIGNS,
    "odd": [{"stage": "levels", "levels": 25}],
}
GOOD = {name: update_bytes(stages) for name, stages in STAGES.items()}
Change = Callable[[bytes], bytes]


def receive(data: bytes, name: str) -> None:
    frame = decode_frame(data, Kind.UPDATE, MAX_HEADER_BYTES)
    read_header(frame)
    decode_update(frame, plan_with(STAGES[name]), SPEC)


def payload(change: Change) -> Change:
    """Returns the change of a whole update that changes its payload and seals it again."""

    def whole(data: bytes) -> bytes:
        at = PREFIX_BYTES + struct.unpack_from("<I", data, 8)[0]
        return sealed(data[5], data[PREFIX_BYTES:at], change(data[at:-4]))

    return whole


def at(offset: int, new: bytes) -> Change:
    return payload(lambda old: old[:offset] + new + old[offset + len(new) :])


def header(**fields: object) -> Change:
    return lambda data: resealed(data, lambda found: found.update(fields))


def side(new: bytes) -> Change:
    """Returns the change that puts other positions into a record of top-k and packing."""
    return payload(
        lambda old: old[:4] + struct.pack("<I", len(new)) + new + old[8 + struct.unpack_from("<I", old, 4)[0] :]
    )


def scale(value: float) -> Change:
    return at(4 + 4 + 2, struct.pack("<f", value))


def signs_scale(value: float) -> Change:
    return at(4 + 4 + 3 + 4, struct.pack("<f", value))


def value(number: float) -> Change:
    return at(4 + 4 + 4 + 4 * 5, struct.pack("<f", number))


MOST = float(np.finfo(np.float32).max)
WRONG: list[tuple[str, str, Change]] = [
    ("E-CRC", "plain", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    ("E-CRC", "plain", lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:]),
    ("E-VERSION", "plain", lambda data: sealed(2, data[PREFIX_BYTES:-4], b"", version=2)),
    ("E-FRAME", "plain", lambda data: b""),
    ("E-FRAME", "plain", lambda data: data[:-1]),
    ("E-FRAME", "plain", lambda data: data + b"\0"),
    ("E-FRAME", "plain", lambda data: b"BFLU" + data[4:]),
    ("E-FRAME", "plain", lambda data: sealed(3, data[PREFIX_BYTES:-4], b"")),
    ("E-FRAME", "plain", lambda data: sealed(2, b"no JSON", b"")),
    ("E-FRAME", "plain", lambda data: sealed(2, b"{}", b"", flags=4)),
    ("E-FRAME", "plain", header(round="2")),
    ("E-FRAME", "plain", header(device="../pi")),
    ("E-FRAME", "plain", header(metrics={"loss": 10**400})),
    ("E-SIZE", "plain", header(metrics={"note": "x" * MAX_HEADER_BYTES})),
    ("E-TENSORS", "plain", payload(lambda old: b"")),
    ("E-TENSORS", "plain", payload(lambda old: old + old)),
    ("E-TENSORS", "plain", payload(lambda old: old + b"\0")),
    ("E-SHAPE", "plain", at(0, struct.pack("<I", 17))),
    ("E-SHAPE", "plain", at(4, struct.pack("<I", 0xFFFFFFFF))),
    ("E-SHAPE", "plain", at(8, struct.pack("<I", 60))),
    ("E-SHAPE", "plain", payload(lambda old: old[:-1])),
    ("E-SHAPE", "plain", payload(lambda old: old[:3])),
    ("E-SHAPE", "plain", payload(lambda old: old[:4] + b"\1\0\0\0\0" + old[8:])),
    ("E-SHAPE", "levels", payload(lambda old: old[:4] + b"\0\0\0\0" + old[14:])),
    ("E-LEVELS", "levels", at(8, struct.pack("<H", 7))),
    ("E-LEVELS", "levels", at(22, b"\xdd")),
    ("E-LEVELS", "levels", at(22, b"\x0f")),
    ("E-SCALE", "levels", scale(0.0)),
    ("E-SCALE", "levels", scale(-0.0)),
    ("E-SCALE", "levels", scale(-1.0)),
    ("E-SCALE", "levels", scale(float("nan"))),
    ("E-SCALE", "levels", scale(float("inf"))),
    ("E-SCALE", "levels", scale(float("-inf"))),
    *(("E-SCALE", "signs", signs_scale(float(wrong))) for wrong in ("-1", "nan", "inf", "-inf")),
    ("E-SHAPE", "signs", payload(lambda old: old[:11] + b"\0\0\0\0" + old[19:])),
    ("E-LEVELS", "signs", at(4 + 4 + 3 + 4 + 4 + 4 + 4, b"\x10")),
    ("E-INDEX", "mask", side(b"")),
    ("E-INDEX", "mask", side(b"\x07\x0f\x00")),
    ("E-INDEX", "mask", side(b"\x00\x07\x00")),  # too few
    ("E-INDEX", "mask", side(b"\x00\x1f\x00")),  # too many
    ("E-INDEX", "mask", side(b"\x00\x0f")),  # short mask
    ("E-INDEX", "mask", side(b"\x00\x0f\x00\x00")),  # long mask
    ("E-INDEX", "mask", side(b"\x01\x21\x32")),  # 1, 2, 2, 3: a duplicate
    ("E-INDEX", "mask", side(b"\x01\x12\x43")),  # 2, 1, 3, 4: decreasing
    ("E-INDEX", "mask", side(b"\x02\x00\x01")),  # one gap of four
    ("E-NONFINITE", "plain", value(float("nan"))),
    ("E-NONFINITE", "plain", value(float("inf"))),
    ("E-NONFINITE", "plain", value(float("-inf"))),
    ("E-NONFINITE", "mask", at(8 + 3 + 8, struct.pack("<f", float("nan")))),
    ("E-NONFINITE", "odd", scale(MOST)),  # 25 * (most / 25) rounds past the largest float32
]


@pytest.mark.parametrize("name", STAGES)
def test_the_untouched_updates_pass(name):
    receive(GOOD[name], name)
    receive(payload(lambda old: old)(GOOD[name]), name)


@pytest.mark.parametrize(("code", "name", "change"), WRONG)
def test_one_change_one_code(code, name, change):
    data = change(GOOD[name])
    assert data != GOOD[name]
    with pytest.raises(WireError) as caught:
        receive(data, name)
    assert caught.value.code == code


def test_other_positions_of_the_right_number_pass():
    """The same edits with right positions are taken, so the refusals above are about the positions."""
    for right in (b"\x00\x0f\x00", b"\x01\x10\x32"):
        receive(side(right)(GOOD["mask"]), "mask")


def test_positions_past_the_end_are_refused():
    plan = plan_with(STAGES["mask"], "tensor")
    data = update_bytes(STAGES["mask"], "tensor")
    receive_tensor = payload(lambda old: old[:8] + b"\x00\x07\x80" + old[11:])(data)
    with pytest.raises(WireError) as caught:
        decode_update(decode_frame(receive_tensor, Kind.UPDATE), plan, SPEC)
    assert caught.value.code == "E-INDEX"


def test_an_update_for_another_plan_is_refused():
    for name, other in (("plain", "levels"), ("levels", "odd"), ("mask", "plain"), ("levels", "mask")):
        with pytest.raises(WireError) as caught:
            receive(GOOD[name], other)
        assert caught.value.code in ("E-SHAPE", "E-LEVELS")
