"""The last stage: values or symbols become bytes.

float32 values are written little-endian. Symbols of `width` bits (the fewest that hold them) are written so:
while width > 8, one byte plane with the low 8 bits of every symbol, then the rest with width - 8;
at width <= 8, one bit stream: symbol i takes bits i*width to i*width + width - 1, the lowest bit of a byte first.
The last byte is filled with zero bits, and a decoder refuses others: one update has one packing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wire.bits import Bits
from wire.errors import WireError
from wire.stages.stage import Local, Shape, Vector

__all__ = ["Pack", "pack_symbols", "packed_bytes", "padding_is_zero", "unpack_symbols", "width_of"]

Octets = npt.NDArray[np.uint8]


def width_of(symbols: int) -> int:
    """Returns the bits that one of `symbols` different values takes."""
    return max(1, (symbols - 1).bit_length())


def packed_bytes(count: int, width: int) -> int:
    """Returns how many bytes `pack_symbols` gives."""
    planes = max(0, (width - 1) // 8)
    return planes * count + (count * (width - 8 * planes) + 7) // 8


def pack_symbols(values: Vector, width: int) -> Octets:
    """Returns the bytes of unsigned `values` that fit in `width` bits."""
    if width > 8:
        low, high = (values & 0xFF).astype(np.uint8), values >> 8
        return np.concatenate([low, pack_symbols(high, width - 8)])
    narrow = values.astype(np.uint8, copy=False)
    if width == 8:
        return np.ascontiguousarray(narrow)
    per = 8 // width if 8 % width == 0 else 8
    padded = _padded(narrow, per)
    return _join(padded, width, per)[: packed_bytes(len(values), width)]


def unpack_symbols(data: Octets, count: int, width: int) -> Vector:
    """Returns the `count` values that `pack_symbols` wrote; `data` must have exactly `packed_bytes` bytes."""
    if width > 8:
        low = data[:count].astype(np.uint32)
        return low | (unpack_symbols(data[count:], count, width - 8).astype(np.uint32) << 8)
    if width == 8:
        return data
    return _cut(data, width)[:count]


def padding_is_zero(data: Octets, count: int, width: int) -> bool:
    """Tells whether the bits after the last symbol are 0, as `pack_symbols` leaves them."""
    used = count * width % 8  # whole byte planes do not change this
    return not used or not int(data[-1]) >> used


def _padded(values: Octets, per: int) -> Octets:
    short = -len(values) % per
    return np.concatenate([values, np.zeros(short, np.uint8)]) if short else values


def _join(values: Octets, width: int, per: int) -> Octets:
    columns = values.reshape(-1, per)
    if per < 8:
        joined: Octets = columns[:, 0].copy()
        for at in range(1, per):
            joined |= columns[:, at] << np.uint8(at * width)
        return joined
    words = np.zeros(len(columns), "<u8")
    for at in range(per):
        words |= columns[:, at].astype("<u8") << np.uint64(at * width)
    octets: Octets = words.view(np.uint8).reshape(-1, 8)[:, :width]
    flat: Octets = octets.reshape(-1)
    return flat


def _cut(data: Octets, width: int) -> Octets:
    mask = (1 << width) - 1
    if 8 % width == 0:
        per = 8 // width
        values = np.empty((len(data), per), np.uint8)
        for at in range(per):
            values[:, at] = (data >> np.uint8(at * width)) & np.uint8(mask)
        return values.reshape(-1)
    groups = _padded(data, width).reshape(-1, width)
    words = np.zeros((len(groups), 8), np.uint8)
    words[:, :width] = groups
    whole = words.view("<u8").reshape(-1)
    values = np.empty((len(groups), 8), np.uint8)
    for at in range(8):
        values[:, at] = ((whole >> np.uint64(at * width)) & np.uint64(mask)).astype(np.uint8)
    return values.reshape(-1)


@dataclass(frozen=True, slots=True)
class Pack:
    """Values or symbols to bytes; `taken` says which."""

    symbols: int = 0

    def shape(self, taken: Shape) -> Shape:
        """See Stage."""
        if taken.symbols:
            return Shape(packed_bytes(taken.size, width_of(taken.symbols)), 256)
        return Shape(4 * taken.size, 256)

    def encode(self, x: Vector, local: Local, bits: Bits) -> tuple[Vector, bytes]:
        """See Stage."""
        if self.symbols:
            return pack_symbols(x, width_of(self.symbols)), b""
        return np.ascontiguousarray(x, dtype="<f4").view(np.uint8), b""

    def decode(self, y: Vector, side: memoryview, taken: Shape) -> Vector:
        """See Stage."""
        if len(side):
            raise WireError(f"packing carries {len(side)} side bytes, expected none", code="E-SHAPE")
        if not taken.symbols:
            return np.frombuffer(y.data, "<f4").astype(np.float32, copy=False)
        width = width_of(taken.symbols)
        if not padding_is_zero(y, taken.size, width):
            raise WireError("bits are set after the last symbol", code="E-LEVELS")
        values = unpack_symbols(y, taken.size, width)
        if taken.size and int(values.max()) >= taken.symbols:
            raise WireError(f"symbol {int(values.max())} of an alphabet of {taken.symbols}", code="E-LEVELS")
        return values
