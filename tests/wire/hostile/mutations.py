"""Damaged and hostile versions of good bytes, drawn from portable seeded bits."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from wire.bits import Bits
from wire.spec import canonical_json

__all__ = ["PREFIX_BYTES", "damaged", "pick", "resealed", "sealed"]

PREFIX_BYTES = 20
DEEP: Any = 1
for _ in range(12):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 7, 65535, 65536, 1 << 31, 1 << 53, 1 << 63, 1 << 64, 10**400, -(10**400)),
    *(0.5, -0.0, 1e-320, 1e308, 1.5, 7.0, "", "x", "topk", "levels", "weights", "tensor", "é", "\x00", "\n", "a" * 500),
    *("0" * 64, "f" * 64, "G" * 64, [], {}, [1], [[]], [[0, 1]], [[0, 1], [1, 2]], [[5, 1]], [None], DEEP),
    *({"stage": "topk", "share": 0.5}, [{"stage": "levels", "levels": 7}], [{"stage": []}], [{}] * 9, {"a": 10**400}),
)


def pick(bits: Bits, count: int) -> int:
    """Returns a whole number below `count`."""
    return int(bits.words(1)[0]) % max(1, count)


def sealed(kind: int, text: bytes, payload: bytes, version: int = 1, flags: int = 0) -> bytes:
    """Returns a frame with right lengths and a right checksum around whatever it is given."""
    body = struct.pack("<4sBBHIQ", b"BFLT", version, kind, flags, len(text), len(payload)) + text + payload
    return body + struct.pack("<I", zlib.crc32(body))


def resealed(data: bytes, edit: Callable[[dict[str, Any]], None]) -> bytes:
    """Returns the frame with its header edited, and sealed again."""
    at = PREFIX_BYTES + struct.unpack_from("<I", data, 8)[0]
    header = json.loads(data[PREFIX_BYTES:at])
    edit(header)
    return sealed(data[5], canonical_json(header), data[at:-4])


def damaged(data: bytes, others: Sequence[bytes], bits: Bits, framed: bool = True) -> bytes:
    """Returns `data` after one to three mutations; of frames, four in five have a right seal around them."""
    steps = _SEALED if framed and pick(bits, 5) else _RAW
    for _ in range(1 + pick(bits, 6) // 3):
        data = steps[pick(bits, len(steps))](data, others[pick(bits, len(others))], bits)
    return data


def _flip(data: bytes, _: bytes, bits: Bits) -> bytes:
    changed = bytearray(data)
    for _ in range(1 + pick(bits, 4)):
        if changed:
            changed[pick(bits, len(changed))] ^= 1 << pick(bits, 8)
    return bytes(changed)


def _truncate(data: bytes, _: bytes, bits: Bits) -> bytes:
    return data[: pick(bits, len(data))]


def _extend(data: bytes, other: bytes, bits: Bits) -> bytes:
    return data + (other[: 1 + pick(bits, len(other))] if pick(bits, 2) else bytes(1 + pick(bits, 9)))


def _splice(data: bytes, other: bytes, bits: Bits) -> bytes:
    return data[: pick(bits, len(data))] + other[pick(bits, len(other)) :]


def _integer(data: bytes, _: bytes, bits: Bits) -> bytes:
    at = pick(bits, max(1, len(data) - 4))
    value = (0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7F800000)[pick(bits, 8)]
    return data[:at] + struct.pack("<I", value) + data[at + 4 :]


_RAW = (_flip, _truncate, _extend, _splice, _integer)


def _parts(data: bytes) -> tuple[bytes, bytes] | None:
    if len(data) < PREFIX_BYTES + 4:
        return None
    at = PREFIX_BYTES + struct.unpack_from("<I", data, 8)[0]
    return (data[PREFIX_BYTES:at], data[at:-4]) if at <= len(data) - 4 else None


def _payload(data: bytes, other: bytes, bits: Bits) -> bytes:
    parts, else_parts = _parts(data), _parts(other)
    if parts is None:
        return data
    raw = _RAW[pick(bits, len(_RAW))]
    return sealed(data[5], parts[0], raw(parts[1], else_parts[1] if else_parts else b"\0", bits))


def _text(data: bytes, _: bytes, bits: Bits) -> bytes:
    parts = _parts(data)
    return sealed(data[5], _flip(parts[0], b"", bits), parts[1]) if parts else data


def _header(data: bytes, _: bytes, bits: Bits) -> bytes:
    try:
        return resealed(data, lambda header: _edit(header, bits))
    except (ValueError, LookupError, AttributeError, TypeError, struct.error):
        return data


def _edit(place: Any, bits: Bits) -> None:
    """Changes one entry of a JSON value, somewhere in it."""
    keys = list(range(len(place))) if isinstance(place, list) else sorted(place)
    key = keys[pick(bits, len(keys))]
    inside = place[key]
    if isinstance(inside, dict | list) and inside and pick(bits, 2):
        _edit(inside, bits)
    elif pick(bits, 5) == 0:
        del place[key]
    elif isinstance(place, dict) and pick(bits, 6) == 0:
        place[("self", "by", "norm", "later", "é")[pick(bits, 5)]] = VALUES[pick(bits, len(VALUES))]
    else:
        place[key] = VALUES[pick(bits, len(VALUES))]


_SEALED = (_payload, _payload, _payload, _text, _header, _header, _header)
