"""Where the values of a weight tensor go: even grids of 2^b steps, one an output channel, and the range they span.

    minmax         from the least weight to the greatest; nothing is clipped
    symmetric      from -max|w| to max|w| with an odd number of steps, so that 0 is exact (the grid of training)
    symmetric_ls   the same, the step of least squared error (training's rule `lsq`)
    mse            min-max shrunk by the factor, of 40, that leaves the least squared error
    ls             affine least squares: codes, then the best scale and low for them, in turns

Profile float: w = scale * codes + low. Profile int8: w = scale * (factor * codes + offset), all INT8: `factor` is the
largest that lets every channel's offset fit, the offset is low / scale rounded to 1 / factor of a step, and the scale
is fitted anew. 0 lies within such a range; a channel far below the others gets no finer scale than 2^-12 of theirs,
because a bias of the integer kernels is counted in that scale.
"""

from __future__ import annotations

import numpy as np

from export.forms import Form, Integer, Uniform
from export.refused import ExportError
from export.store.planes import Codes
from wire.params import Array

__all__ = ["PROFILES", "RANGES", "fitted", "place", "sqnr_db"]

RANGES = ("minmax", "symmetric", "symmetric_ls", "mse", "ls")
PROFILES = ("float", "int8")

_FITTED = ("symmetric_ls", "mse", "ls")
_TINY = np.float32(np.finfo(np.float32).tiny)
_SHARES = tuple(1.0 - 0.02 * at for at in range(40))  # of the min-max range, down to 0.22
_TURNS = 8
_LARGEST = 2.0**60  # squares of these are still float32 numbers
_LEAST_STEPS = np.float32(1e-3)  # an end of the range nearer to 0 than this sets no limit
_FINEST = np.float32(2.0**-12)  # of a tensor's largest scale
_NEXT_TO_NOTHING = np.float32(2.0**-20)
_SCALE_OF_ZEROS = np.float32(2.0**-8)


def place(weight: Array, bits: int, range_name: str, profile: str) -> Form:
    """Returns the form of `weight` on the grid of this range: Uniform, or Integer for the profile int8."""
    _check(weight, bits, range_name, profile)
    rows = np.ascontiguousarray(weight, np.float32).reshape(weight.shape[0], -1)
    top = 2**bits - (2 if range_name.startswith("symmetric") else 1)
    scale, low = _range(rows, top, range_name)
    if profile == "int8":
        codes, factor, offset, scale = _integer(rows, scale, low, top, refit=range_name in _FITTED)
        return Integer(bits, codes.reshape(weight.shape), factor, offset[:, 0].astype(np.int16), scale[:, 0])
    return Uniform(bits, _codes(rows, scale, low, top).reshape(weight.shape), scale[:, 0], low[:, 0])


def fitted(weight: Array, codes: Codes, bits: int) -> Uniform:
    """Returns the spread form of these very codes whose scale and low, by channel, leave the least squared error.

    For codes that were cut from wider ones.
    """
    _check(weight, bits, "ls", "float")
    rows, levels = (np.asarray(one, np.float32).reshape(weight.shape[0], -1) for one in (weight, codes))
    scale, _ = _range(rows, 2**bits - 1, "minmax")
    scale, low = _affine(rows, levels, scale)
    return Uniform(bits, codes, scale[:, 0], low[:, 0], spread=True)


def sqnr_db(weight: Array, form: Form) -> float:
    """Returns how far the form's rounding lies below the weights, in decibels; infinite where nothing is lost."""
    lost = np.square(form.values().astype(np.float64) - weight).sum()
    power = np.square(weight, dtype=np.float64).sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(10 * np.log10(power / lost)) if lost else float("inf")


def _check(weight: Array, bits: int, range_name: str, profile: str) -> None:
    if range_name not in RANGES or profile not in PROFILES:
        raise ExportError(f"range {range_name!r}, profile {profile!r}", remedy=f"choose of {RANGES} and {PROFILES}")
    if not 2 <= bits <= 8:
        raise ExportError(f"{bits} bits on an even grid", remedy="use 2 to 8; 1 bit is a Table of two centres")
    if weight.ndim < 2 or not weight.size:
        raise ExportError(f"a weight of shape {weight.shape}", remedy="leave tensors of one dimension in float")
    if not (np.abs(weight) <= _LARGEST).all():
        raise ExportError("a weight is not finite, or above 2^60", remedy="train again: this model cannot be used")


def _range(rows: Array, top: int, range_name: str) -> tuple[Array, Array]:
    if range_name.startswith("symmetric"):
        most = np.abs(rows).max(1, keepdims=True)
        scale = _positive(most * np.float32(2 / top), most)
        if range_name == "symmetric_ls":
            scale = _least_symmetric(rows, scale, top)
        return scale, scale * np.float32(-(top // 2))
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    scale = _positive(high / np.float32(top) - low / np.float32(top), high)
    if range_name == "minmax":
        return scale, low
    return _least_shrunk(rows, scale, low, top) if range_name == "mse" else _least_squares(rows, scale, low, top)


def _codes(rows: Array, scale: Array | np.float32, low: Array, top: int) -> Codes:
    """Returns the nearest codes; a range too narrow for float32 to divide by gives the ends."""
    with np.errstate(over="ignore"):
        steps = (rows - low) / scale
    whole: Codes = np.rint(np.clip(steps, 0, top, out=steps), out=steps).astype(np.uint8)
    return whole


def _error(rows: Array, scale: Array, low: Array, top: int) -> Array:
    codes = _codes(rows, scale, low, top)
    off = codes * scale
    off += low
    off -= rows
    return np.asarray(np.einsum("ck,ck->c", off, off)[:, None])


def _least_shrunk(rows: Array, scale: Array, low: Array, top: int) -> tuple[Array, Array]:
    best = (scale, low)
    least = _error(rows, scale, low, top)
    for share in _SHARES[1:]:
        tried = (np.maximum(scale * np.float32(share), _TINY), low * np.float32(share))
        error = _error(rows, *tried, top)
        better = error < least
        best = (np.where(better, tried[0], best[0]), np.where(better, tried[1], best[1]))
        least = np.where(better, error, least)
    return best


def _least_symmetric(rows: Array, scale: Array, top: int) -> Array:
    """Returns the step of least squared error: a search of the shrunk ones, then steps fitted to the codes in turns."""
    scale, low = _least_shrunk(rows, scale, scale * np.float32(-(top // 2)), top)
    for _ in range(_TURNS):
        level = _codes(rows, scale, low, top) - np.float32(top // 2)
        scale = _fitted(rows, level, scale)
        low = scale * np.float32(-(top // 2))
    return scale


def _least_squares(rows: Array, scale: Array, low: Array, top: int) -> tuple[Array, Array]:
    """Returns the affine fit after turns none of which makes the squared error larger, from the best shrunk range."""
    scale, low = _least_shrunk(rows, scale, low, top)
    for _ in range(_TURNS):
        scale, low = _affine(rows, _codes(rows, scale, low, top).astype(np.float32), scale)
    return scale, low


def _affine(rows: Array, levels: Array, scale: Array) -> tuple[Array, Array]:
    middle, centre = (one.mean(1, keepdims=True, dtype=np.float64).astype(np.float32) for one in (rows, levels))
    scale = _fitted(rows - middle, levels - centre, scale)
    return scale, middle - scale * centre


def _fitted(rows: Array, levels: Array, scale: Array) -> Array:
    """Returns the scale s of least |rows - s * levels|^2; the old one where the levels are all 0 or s would be none."""
    square = np.einsum("ck,ck->c", levels, levels)[:, None]
    shared = np.einsum("ck,ck->c", rows, levels)[:, None]
    fits = (square > 0) & (shared > square * _TINY)
    return np.asarray(np.where(fits, shared / np.where(square > 0, square, 1), scale), np.float32)


def _positive(scale: Array, like: Array) -> Array:
    """Returns the scale, and for a channel of one value next to nothing: any would do, and 0 would not."""
    instead = np.where(like != 0, np.abs(like) * _NEXT_TO_NOTHING, _SCALE_OF_ZEROS)
    return np.asarray(np.maximum(np.where(scale > 0, scale, instead), _TINY), np.float32)


def _integer(rows: Array, scale: Array, low: Array, top: int, *, refit: bool) -> tuple[Codes, int, Array, Array]:
    """Returns codes, factor, offset and scale."""
    low, high = np.minimum(low, 0), np.maximum(low + scale * np.float32(top), 0)
    scale = np.where(high > low, (high - low) / np.float32(top), scale)
    least = np.clip(low / scale, -top, 0)  # in steps
    factor = max(1, int(np.minimum(_room(-least, 128), _room(least + top, 127)).min()))
    offset = np.clip(np.rint(least * factor), -128, 127 - factor * top).astype(np.float32)
    scale = np.maximum(_covering(low, offset), _covering(high, offset + factor * top))
    scale = _floored(np.where(scale > 0, scale, _SCALE_OF_ZEROS))
    for _ in range(_TURNS if refit else 0):
        levels = _codes(rows / scale, np.float32(factor), offset, top) * np.float32(factor) + offset
        scale = _floored(_fitted(rows, levels, scale))
    return _codes(rows / scale, np.float32(factor), offset, top), factor, offset, scale


def _room(steps: Array, whole: int) -> Array:
    """Returns how many whole numbers a step may take, so that so many steps stay within `whole`."""
    return np.asarray(np.float32(whole) / np.maximum(steps, _LEAST_STEPS), np.float32)


def _covering(end: Array, whole: Array) -> Array:
    """Returns the scale at which the grid's end, in whole numbers, lies on the range's end."""
    return np.asarray(np.where(whole != 0, end / np.where(whole != 0, whole, 1), 0), np.float32)


def _floored(scale: Array) -> Array:
    return np.asarray(np.maximum(scale, np.maximum(scale.max() * _FINEST, _TINY)), np.float32)
