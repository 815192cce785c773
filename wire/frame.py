"""Frames: the one envelope of everything that travels.

    offset  bytes  field
    0       4      magic "BFLT"
    4       1      protocol version, 1
    5       1      kind, see `Kind`
    6       2      flags; bit 0: an Ed25519 signature follows the payload
    8       4      header bytes H
    12      8      payload bytes P
    20      H      header: a JSON object in canonical form
    20+H    P      payload
    20+H+P  64     signature over everything before it, if flag bit 0 is set
    end-4   4      CRC-32 (zlib) of everything before it

All numbers are little-endian. Decoding checks, in this order: size, magic, lengths, CRC, version, kind, header.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from wire.errors import WireError
from wire.spec import canonical_json, parse_json

__all__ = ["VERSION", "Frame", "Kind", "decode_frame", "encode_frame", "peek_header"]

VERSION = 1
MAX_HEADER_BYTES = 1 << 20
MAX_DEPTH = 16
SIGNATURE_BYTES = 64

_MAGIC = b"BFLT"
_PREFIX = struct.Struct("<4sBBHIQ")
_CRC = struct.Struct("<I")
FRAME_BYTES = _PREFIX.size + _CRC.size
_SIGNED = 1


class Kind(IntEnum):
    """What a frame holds."""

    PLAN = 1
    UPDATE = 2
    BLOB = 3
    RECEIPT = 5
    ASK = 6
    JOB = 7
    RESULT = 8
    STATE = 9
    INFO = 10
    CHECKPOINT = 11
    MANIFEST = 12
    OFFER = 13
    MODEL = 14
    GOLDEN = 15


@dataclass(frozen=True, slots=True)
class Frame:
    """A decoded frame. `payload` looks into the received bytes; `body` is what a signature covers."""

    kind: Kind
    header: dict[str, Any]
    payload: memoryview
    body: memoryview
    signature: bytes | None


def encode_frame(
    kind: Kind, header: Mapping[str, Any], payload: bytes = b"", sign: Callable[[bytes], bytes] | None = None
) -> bytes:
    """Returns the frame's bytes; `sign` turns the body into a 64-byte signature."""
    text = _header_text(header)
    flags = _SIGNED if sign else 0
    body = _PREFIX.pack(_MAGIC, VERSION, kind, flags, len(text), len(payload)) + text + payload
    if sign:
        body += sign(body)
    return body + _CRC.pack(zlib.crc32(body))


def decode_frame(data: bytes | memoryview, kind: Kind, max_header_bytes: int = MAX_HEADER_BYTES) -> Frame:
    """Returns the frame in `data`; raises WireError with the code of the first check that fails."""
    view = memoryview(data)
    header_bytes, payload_bytes, flags = _checked_lengths(view, max_header_bytes)
    if _CRC.unpack(view[-_CRC.size :])[0] != zlib.crc32(view[: -_CRC.size]):
        raise WireError("checksum does not match the bytes", code="E-CRC", remedy="send it again")
    if view[4] != VERSION:
        raise WireError(f"protocol version {view[4]}, this side speaks {VERSION}", code="E-VERSION")
    if view[5] != kind:
        raise WireError(f"frame kind {view[5]}, expected {int(kind)} ({kind.name.lower()})")
    start, end = _PREFIX.size + header_bytes, _PREFIX.size + header_bytes + payload_bytes
    return Frame(
        kind=kind,
        header=_parse_header(bytes(view[_PREFIX.size : start])),
        payload=view[start:end],
        body=view[:end],
        signature=bytes(view[end : end + SIGNATURE_BYTES]) if flags & _SIGNED else None,
    )


def peek_header(data: bytes | memoryview, max_header_bytes: int = MAX_HEADER_BYTES) -> dict[str, Any] | None:
    """Returns the header without believing the rest of the frame, or None if there is none to be read."""
    try:
        view = memoryview(data)
        header_bytes, _, _ = _checked_lengths(view, max_header_bytes)
        return _parse_header(bytes(view[_PREFIX.size : _PREFIX.size + header_bytes]))
    except WireError:
        return None


def _checked_lengths(view: memoryview, max_header_bytes: int) -> tuple[int, int, int]:
    if len(view) < _PREFIX.size + _CRC.size:
        raise WireError(f"{len(view)} bytes are too few for a frame (at least {_PREFIX.size + _CRC.size})")
    magic, _, _, flags, header_bytes, payload_bytes = _PREFIX.unpack(view[: _PREFIX.size])
    if magic != _MAGIC:
        raise WireError(f"magic {bytes(magic)!r}, expected {_MAGIC!r}")
    if flags & ~_SIGNED:
        raise WireError(f"flags {flags:#06x} hold bits that version {VERSION} does not know")
    if header_bytes > max_header_bytes:
        raise WireError(f"header of {header_bytes} bytes, at most {max_header_bytes} are read", code="E-SIZE")
    tail = SIGNATURE_BYTES * (flags & _SIGNED) + _CRC.size
    if _PREFIX.size + header_bytes + payload_bytes + tail != len(view):
        raise WireError(f"lengths {header_bytes} + {payload_bytes} do not fit a frame of {len(view)} bytes")
    return header_bytes, payload_bytes, flags


def _header_text(header: Mapping[str, Any]) -> bytes:
    try:
        return canonical_json(header)
    except (ValueError, TypeError, RecursionError) as exc:
        raise WireError(f"header cannot be written as JSON: {exc}") from exc


def _parse_header(text: bytes) -> dict[str, Any]:
    try:
        header = parse_json(text)
        brackets = text.count(b"{") + text.count(b"[")  # no nesting is deeper than that
        if brackets > MAX_DEPTH and _deeper_than(header, MAX_DEPTH):
            raise WireError(f"header is nested more than {MAX_DEPTH} deep")
        canonical = isinstance(header, dict) and canonical_json(header) == text
    except (ValueError, RecursionError) as exc:
        raise WireError(f"header is not JSON: {exc}") from exc
    if not canonical:
        raise WireError("header is not a JSON object in canonical form (sorted keys, no blanks)")
    return dict(header)


def _deeper_than(value: object, most: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return most == 0 or any(_deeper_than(item, most - 1) for item in inner)
