"""Codes of 1 to 8 bits as bit planes, most significant first, packed without loss of room.

Plane p of `bits` holds bit (bits - 1 - p) of every code. A plane has M = ceil(count / 8) bytes, and bit k of its byte m
belongs to code number k * M + m: a runtime then shifts whole rows of bytes by one number, not each byte by eight.
Codes past the last one are 0.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from export.refused import ExportError

__all__ = ["Codes", "check_codes", "pack", "unpack"]

Codes = npt.NDArray[np.uint8]

_BYTE = np.arange(8, dtype=np.uint8)[:, None]


def pack(codes: Codes, bits: int) -> Codes:
    """Returns the planes, uint8 of shape [bits, ceil(count / 8)]."""
    check_codes(codes, bits)
    width = -(-codes.size // 8)
    flat = np.zeros(8 * width, np.uint8)
    flat[: codes.size] = codes.reshape(-1)
    rows = flat.reshape(8, width)
    planes = [np.packbits((rows >> place) & 1, axis=0, bitorder="little")[0] for place in range(bits - 1, -1, -1)]
    return np.stack(planes)


def unpack(planes: Codes, count: int) -> Codes:
    """Returns the first `count` codes of these planes, flat."""
    codes = np.zeros((8, planes.shape[1]), np.uint8)
    for plane in planes:
        codes = (codes << 1) | ((plane >> _BYTE) & 1)
    return codes.reshape(-1)[:count]


def check_codes(codes: Codes, bits: int) -> None:
    """Raises ExportError unless these are codes of so many bits."""
    if not 1 <= bits <= 8 or codes.dtype != np.uint8 or not codes.size:
        raise ExportError(f"{codes.size} codes of type {codes.dtype} at {bits} bits", remedy="use uint8, 1 to 8 bits")
    if int(codes.max()) >> bits:
        raise ExportError(f"the code {int(codes.max())} does not fit in {bits} bits")
