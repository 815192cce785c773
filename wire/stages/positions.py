"""Sorted positions 0 <= p < n as bytes, in the shortest of three codings.

    coding  bytes after the coding byte
    0 mask     ceil(n/8): bit i (lowest bit of a byte first) says whether position i is there
    1 indices  k symbols of the fewest bits that hold n-1, packed as in `pack`
    2 gaps     u8 r, then the gaps g (first position, then differences less 1) as Rice codes: all quotients g >> r
               in unary (that many 0 bits, then a 1), lowest bit first, filled to a byte; then k packed remainders
               of r bits

The first byte is the coding. k, the number of positions, is known from the plan.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wire.errors import WireError
from wire.stages.pack import pack_symbols, packed_bytes, padding_is_zero, unpack_symbols, width_of

__all__ = ["decode_positions", "encode_positions"]

Positions = npt.NDArray[np.int64]
Octets = npt.NDArray[np.uint8]

_MASK, _INDICES, _GAPS = 0, 1, 2
_MOST_REMAINDER_BITS = 31


def encode_positions(positions: Positions, n: int) -> bytes:
    """Returns the shortest coding; at equal length the lowest coding number."""
    width, k = width_of(n), len(positions)
    gaps = np.diff(positions, prepend=-1) - 1
    r, gap_bytes = _best_remainder(gaps)
    sizes = {_MASK: (n + 7) // 8, _INDICES: packed_bytes(k, width), _GAPS: 1 + gap_bytes}
    coding = min(sizes, key=lambda c: (sizes[c], c))
    if coding == _MASK:
        body = _mask(positions, n).tobytes()
    elif coding == _INDICES:
        body = pack_symbols(positions.astype(np.uint32), width).tobytes()
    else:
        body = bytes([r]) + _rice(gaps, r)
    return bytes([coding]) + body


def decode_positions(data: memoryview, k: int, n: int) -> Positions:
    """Returns the k strictly increasing positions below n, or raises WireError."""
    if not len(data):
        raise WireError("positions are missing", code="E-INDEX")
    if len(data) > 1 + (n + 7) // 8:  # checked first: gaps unfold to 64 times their bytes
        raise WireError(f"positions of {len(data)} bytes, longer than a mask of {n} elements", code="E-INDEX")
    coding, body = data[0], np.frombuffer(data[1:], np.uint8)
    if coding == _MASK:
        positions = _unmask(body, n)
    elif coding == _INDICES:
        positions = _unindex(body, k, width_of(n))
    elif coding == _GAPS:
        positions = _unrice(body, k)
    else:
        raise WireError(f"position coding {coding} is unknown", code="E-INDEX")
    return _checked(positions, k, n)


def _checked(positions: Positions, k: int, n: int) -> Positions:
    if len(positions) != k:
        raise WireError(f"{len(positions)} positions, the plan says {k}", code="E-INDEX")
    if k and (positions[0] < 0 or positions[-1] >= n or bool(np.any(np.diff(positions) <= 0))):
        raise WireError(f"positions are not strictly increasing below {n}", code="E-INDEX")
    return positions


def _mask(positions: Positions, n: int) -> Octets:
    flags = np.zeros(n, np.uint8)
    flags[positions] = 1
    return np.packbits(flags, bitorder="little")


def _unmask(body: Octets, n: int) -> Positions:
    if len(body) != (n + 7) // 8:
        raise WireError(f"mask of {len(body)} bytes for {n} elements", code="E-INDEX")
    flags = np.unpackbits(body, bitorder="little")
    if flags[n:].any():
        raise WireError(f"mask sets a bit past element {n - 1}", code="E-INDEX")
    return np.flatnonzero(flags)


def _unindex(body: Octets, k: int, width: int) -> Positions:
    if len(body) != packed_bytes(k, width):
        raise WireError(f"{len(body)} bytes for {k} indices of {width} bits", code="E-INDEX")
    return _unpacked(body, k, width)


def _unpacked(data: Octets, k: int, width: int) -> Positions:
    if not padding_is_zero(data, k, width):
        raise WireError(f"bits are set after {k} symbols of {width} bits", code="E-INDEX")
    return unpack_symbols(data, k, width).astype(np.int64)


def _best_remainder(gaps: Positions) -> tuple[int, int]:
    """Returns the remainder width near the mean gap that gives the fewest bytes, and those bytes."""
    mean = float(gaps.mean()) if len(gaps) else 0.0
    guess = max(0, int(np.log2(mean * 0.69 + 1)))
    choices = range(max(0, guess - 1), min(_MOST_REMAINDER_BITS, guess + 2))
    return min(((r, _rice_bytes(gaps, r)) for r in choices), key=lambda item: (item[1], item[0]))


def _rice_bytes(gaps: Positions, r: int) -> int:
    unary = int((gaps >> r).sum()) + len(gaps)
    return (unary + 7) // 8 + (packed_bytes(len(gaps), r) if r else 0)


def _rice(gaps: Positions, r: int) -> bytes:
    ends = np.cumsum((gaps >> r) + 1) - 1
    bits = np.zeros(int(ends[-1]) + 1 if len(ends) else 0, np.uint8)
    bits[ends] = 1
    unary = np.packbits(bits, bitorder="little").tobytes()
    rest = pack_symbols((gaps & ((1 << r) - 1)).astype(np.uint32), r).tobytes() if r else b""
    return unary + rest


def _unrice(body: Octets, k: int) -> Positions:
    if not len(body) or body[0] > _MOST_REMAINDER_BITS:
        raise WireError("gap coding without a remainder width up to 31", code="E-INDEX")
    r = int(body[0])
    rest_bytes = packed_bytes(k, r) if r else 0
    unary, rest = body[1 : len(body) - rest_bytes], body[len(body) - rest_bytes :]
    if len(body) - 1 < rest_bytes:
        raise WireError(f"gap coding of {len(body)} bytes is too short for {k} remainders", code="E-INDEX")
    ends = np.flatnonzero(np.unpackbits(unary, bitorder="little"))
    if len(ends) != k or (k and int(ends[-1]) // 8 != len(unary) - 1):
        raise WireError(f"gap coding holds {len(ends)} quotients in {len(unary)} bytes for {k}", code="E-INDEX")
    quotients = np.diff(ends, prepend=-1) - 1
    remainders = _unpacked(rest, k, r) if r else np.zeros(k, np.int64)
    return np.cumsum((quotients << r) + remainders + 1) - 1
