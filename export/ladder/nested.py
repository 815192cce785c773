"""Nested codes: the width b is the upper b bits of the 8-bit codes, with a grid of its own fitted to the weights.

    float   w = scale_b * (codes >> (8 - b)) + low_b                  the codes of separate rounding at 8 bits
    int8    w = scale_b * (((factor_b * (codes >> (8 - b)) + offset_b) >> 16) - 128)

For int8 each channel's INT8 values of separate rounding are stretched over all 256 codes, so that no upper bits lie
idle; at 8 bits the same values come back. Never plain truncation, which puts every weight at the end of its cell.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from export.forms import RESCALED_BITS, Form, Integer, Rescaled, Uniform
from export.grids import fitted, place
from export.refused import ExportError
from export.store.planes import Codes, pack
from wire.params import Array
from wire.pieces.bundle import cut, make_bundle, prefixes

__all__ = ["bundled", "nested_forms"]

Rows = npt.NDArray[np.float64]
Levels = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]

_BITS, _TOP, _ONE = 8, 255, 1 << RESCALED_BITS
_SHARES = tuple(1 + at / 512 for at in range(16))  # the levels move by half a number, or more
_TINY = np.finfo(np.float32).tiny


def nested_forms(weights: Mapping[str, Array], bits: int, profile: str) -> dict[str, Form]:
    """Returns the forms of all weights at this width, all cut from the same 8-bit codes."""
    return {name: _nested(values, bits, profile) for name, values in weights.items()}


def bundled(weights: Mapping[str, Array], files: Mapping[int, bytes], profile: str) -> tuple[bytes, dict[int, int]]:
    """Returns the bundle of the files of these widths, and how many of its bytes each needs."""
    depth = max(files)
    planes = {name: _planes(_codes(_placed(values, profile)), depth) for name, values in weights.items()}
    bundle = make_bundle(files, planes)
    need = prefixes(bundle)
    wrong = [bits for bits, file in files.items() if cut(bundle[: need[bits]], bits) != file]
    if wrong:
        raise ExportError(f"the files of {wrong} bits cannot be cut from their bundle")
    return bundle, need


def _planes(codes: Codes, depth: int) -> list[bytes]:
    return [plane.tobytes() for plane in pack(codes, _BITS)[:depth]]


def _placed(values: Array, profile: str) -> Uniform | Integer:
    """Returns the form of separate rounding at 8 bits."""
    form = place(values, _BITS, "minmax", profile)
    if not isinstance(form, Uniform | Integer):
        raise ExportError(f"a form {type(form).__name__} has no nested codes in the profile {profile!r}")
    return form


def _codes(form: Uniform | Integer) -> Codes:
    """Returns the 8-bit codes of which every width is a part."""
    if isinstance(form, Uniform):
        return form.codes
    whole, least, span = _stretch(form)
    stretched: Codes = np.rint((whole - least) * (_TOP / span)).astype(np.uint8)
    return stretched.reshape(form.codes.shape)


def _stretch(form: Integer) -> tuple[Rows, Rows, Rows]:
    """Returns the INT8 values by channel, the least of each, and how far they reach from there."""
    whole = form.int8.reshape(len(form.int8), -1).astype(np.float64)
    least = whole.min(1, keepdims=True)
    return whole, least, np.maximum(whole.max(1, keepdims=True) - least, 1)


def _nested(values: Array, bits: int, profile: str) -> Form:
    whole = _placed(values, profile)
    codes: Codes = _codes(whole) >> np.uint8(_BITS - bits)
    if isinstance(whole, Uniform):
        return fitted(values, codes, bits)
    unit = whole.scale.astype(np.float64)[:, None]
    tally = _tally(values, codes, bits)
    if bits == _BITS:
        _, least, span = _stretch(whole)
        return _rescaled(codes, bits, unit, [_levels(unit * span / _TOP, unit * least, unit)], tally)
    grid = fitted(values, codes, bits)
    scale, low = (each.astype(np.float64)[:, None] for each in (grid.scale, grid.low))
    # The levels reach from end to end of INT8, or a little less: which whole numbers they fall on makes a difference.
    unit = np.maximum(unit / 2, np.maximum(-low / 128, (low + scale * (2**bits - 1)) / 127))
    return _rescaled(codes, bits, unit, [_levels(scale, low, unit * share) for share in _SHARES], tally)


def _levels(scale: Rows, low: Rows, unit: Rows) -> Levels:
    """Returns factor and offset of each channel, in 2^-16ths."""
    factor = np.rint(scale / unit * _ONE).astype(np.int32)
    return factor, np.rint((low / unit + 128) * _ONE + _ONE / 2).astype(np.int32)


def _tally(values: Array, codes: Codes, bits: int) -> tuple[Rows, Rows]:
    """Returns by channel and code how many weights have it, and their sum."""
    count, rows = len(values), values.reshape(-1).astype(np.float64)
    places = ((np.arange(count)[:, None] << bits) + codes.reshape(count, -1)).reshape(-1)
    counts, sums = (
        np.asarray(np.bincount(places, each, count << bits), np.float64).reshape(count, -1)
        for each in (np.ones_like(rows), rows)
    )
    return counts, sums


def _rescaled(codes: Codes, bits: int, unit: Rows, tried: list[Levels], tally: tuple[Rows, Rows]) -> Rescaled:
    """Returns the form with each channel's best levels, and for them the scale of least squares; the unit where all its
    numbers are 0.
    """
    counts, sums = tally
    found = []
    for factor, offset in tried:
        whole = ((factor.astype(np.int64) * np.arange(2**bits) + offset) >> RESCALED_BITS) - 128
        shared, square = (sums * whole).sum(1), (counts * np.square(whole)).sum(1)
        fits = (square > 0) & (shared > square * _TINY)
        scale = np.where(fits, shared / np.where(square > 0, square, 1), unit[:, 0])
        found.append((np.where(fits, shared * scale, 0), factor[:, 0], offset[:, 0], scale))
    gain, *parts = (np.stack(each) for each in zip(*found, strict=True))
    best = gain.argmax(0)
    factor, offset, scale = (each[best, np.arange(len(best))] for each in parts)
    return Rescaled(bits, codes, factor, offset, scale.astype(np.float32))
