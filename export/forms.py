"""What a weight tensor is in a file: whole-number codes of some bits, and how values follow from them.

    Uniform   w = scale * codes + low                       scale and low one an output channel
    Integer   w = scale * (factor * codes + offset)         the bracket is an INT8 value, scale and offset by channel
    Rescaled  w = scale * (((factor * codes + offset) >> 16) - 128)     the same, factor and offset by channel: nested
    Table     w = table[codes]                              learned centres, 1 bit included
    Plain     w = values                                    float32, as it was

Codes are stored as bit planes, those of 8 bits as bytes, and those of 4 and 2 as elements where a file is packed so:
unless they are `spread`, which makes them planes as well, so that narrower files hold the first of the same planes.

An output channel is a slice of dimension 0. `values()` is what the file computes, to the last bit: each product and
each sum is rounded once to float32, in the order written here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from export.refused import ExportError
from export.store.planes import Codes, check_codes
from wire.params import Array

__all__ = ["RESCALED_BITS", "Form", "Integer", "Plain", "Rescaled", "Table", "Uniform", "along"]

RESCALED_BITS = 16

Int8 = npt.NDArray[np.int8]

_STEPS = 127
_TINY = float(np.finfo(np.float32).tiny)
_Scalar = TypeVar("_Scalar", bound=np.generic)


def along(values: npt.NDArray[_Scalar], rank: int) -> npt.NDArray[_Scalar]:
    """Returns one value an output channel, shaped to broadcast over a weight of this rank."""
    return values.reshape(-1, *[1] * (rank - 1))


@dataclass(frozen=True, eq=False)
class Uniform:
    """Codes on a grid of even steps from `low` up; for the profile float."""

    bits: int
    codes: Codes
    scale: Array
    low: Array
    spread: bool = False

    def __post_init__(self) -> None:
        _check_codes(self.codes, self.bits)
        _check_channels(self.codes, scale=self.scale, low=self.low)
        _check_scale(self.scale)

    def values(self) -> Array:
        """Returns the weights."""
        rank = self.codes.ndim
        steps = self.codes.astype(np.float32) * along(self.scale, rank)
        return np.asarray(steps + along(self.low, rank), np.float32)

    @property
    def as_bytes(self) -> bool:
        """Tells whether codes are stored as bytes."""
        return self.bits == 8 and not self.spread

    @property
    def payload_bytes(self) -> int:
        """Returns what the codes and the grid take, without names and nodes."""
        return _stored_bytes(self) + self.scale.nbytes + self.low.nbytes


@dataclass(frozen=True, eq=False)
class Integer:
    """Codes that become INT8 values by whole numbers; for both profiles."""

    bits: int
    codes: Codes
    factor: int
    offset: npt.NDArray[np.int16]
    scale: Array
    spread: bool = False

    def __post_init__(self) -> None:
        _check_codes(self.codes, self.bits)
        _check_channels(self.codes, scale=self.scale, offset=self.offset)
        _check_scale(self.scale)
        wide = self._wide()
        if not 1 <= self.factor <= 255 >> (self.bits - 1) or wide.min() < -128 or wide.max() > 127:
            raise ExportError(
                f"factor {self.factor} at {self.bits} bits gives values from {wide.min()} to {wide.max()}",
                remedy="factor * code + offset must be an INT8 value, factor * 2^(bits - 1) at most 255",
            )

    def values(self) -> Array:
        """Returns the weights."""
        return np.asarray(self.int8.astype(np.float32) * along(self.scale, self.codes.ndim), np.float32)

    @cached_property
    def int8(self) -> Int8:
        """Returns the weights as whole numbers."""
        return self._wide().astype(np.int8)

    @property
    def channel_scale(self) -> Array:
        """Returns the scale of each output channel."""
        return self.scale

    @property
    def as_bytes(self) -> bool:
        """Tells whether codes are stored as bytes."""
        return self.bits == 8 and not self.spread

    @property
    def payload_bytes(self) -> int:
        """Returns what the codes and the grid take, without names and nodes."""
        offset = 0 if self.as_bytes else self.offset.size * 4  # as bytes the INT8 values themselves are stored
        return _stored_bytes(self) + self.scale.nbytes + offset

    def _wide(self) -> npt.NDArray[np.int32]:
        whole = self.codes.astype(np.int32) * np.int32(self.factor)
        return np.asarray(whole + along(self.offset.astype(np.int32), self.codes.ndim), np.int32)


@dataclass(frozen=True, eq=False)
class Rescaled:
    """Codes that become INT8 values by a product of their own channel's, rounded; for the profile int8."""

    bits: int
    codes: Codes
    factor: npt.NDArray[np.int32]
    offset: npt.NDArray[np.int32]
    scale: Array

    def __post_init__(self) -> None:
        _check_codes(self.codes, self.bits)
        _check_channels(self.codes, scale=self.scale, factor=self.factor, offset=self.offset)
        _check_scale(self.scale)
        if self.factor.dtype != np.int32 or self.offset.dtype != np.int32:
            raise ExportError(f"factor {self.factor.dtype}, offset {self.offset.dtype}", remedy="use int32")
        wide = self._wide()
        if wide.min() < 0 or wide.max() > 255:
            raise ExportError(
                f"codes of {self.bits} bits give values from {wide.min() - 128} to {wide.max() - 128}",
                remedy="(factor * code + offset) >> 16 must be from 0 to 255",
            )

    def values(self) -> Array:
        """Returns the weights."""
        return np.asarray(self.int8.astype(np.float32) * along(self.scale, self.codes.ndim), np.float32)

    @cached_property
    def int8(self) -> Int8:
        """Returns the weights as whole numbers."""
        return (self._wide() - 128).astype(np.int8)

    @property
    def channel_scale(self) -> Array:
        """Returns the scale of each output channel."""
        return self.scale

    @property
    def as_bytes(self) -> bool:
        """Tells whether codes are stored as bytes: never, they are nested."""
        return False

    @property
    def payload_bytes(self) -> int:
        """Returns what the codes and the grid take, without names and nodes."""
        return _stored_bytes(self) + self.scale.nbytes + self.factor.nbytes + self.offset.nbytes

    def _wide(self) -> npt.NDArray[np.int64]:
        rank = self.codes.ndim
        whole = self.codes.astype(np.int64) * along(self.factor.astype(np.int64), rank)
        return np.asarray((whole + along(self.offset.astype(np.int64), rank)) >> RESCALED_BITS, np.int64)


@dataclass(frozen=True, eq=False)
class Table:
    """Codes that are places in one table of centres, in any order, for all channels; for both profiles.

    In the profile int8 the table is rounded to INT8 with one scale: `rounded()` is the form that file computes.
    """

    bits: int
    codes: Codes
    table: Array

    def __post_init__(self) -> None:
        _check_codes(self.codes, self.bits)
        if self.table.ndim != 1 or self.table.dtype != np.float32 or not np.isfinite(self.table).all():
            raise ExportError(f"the table is {self.table.dtype}{self.table.shape}", remedy="use finite float32 centres")
        if self.codes.max() >= self.table.size:
            raise ExportError(f"the code {self.codes.max()} is past the table of {self.table.size}")

    def values(self) -> Array:
        """Returns the weights."""
        return self.table[self.codes]

    def rounded(self) -> Table:
        """Returns the same codes with the table that INT8 can hold."""
        return Table(self.bits, self.codes, self.int8_table.astype(np.float32) * self._scale)

    @cached_property
    def int8_table(self) -> Int8:
        """Returns the centres as whole numbers from -127 to 127."""
        return np.rint(self.table / self._scale).astype(np.int8)

    @property
    def int8(self) -> Int8:
        """Returns the weights as whole numbers."""
        return self.int8_table[self.codes]

    @property
    def channel_scale(self) -> Array:
        """Returns the one scale, repeated for each output channel."""
        return np.full(self.codes.shape[0], self._scale, np.float32)

    @property
    def as_bytes(self) -> bool:
        """Tells whether codes are stored as bytes."""
        return self.bits == 8

    @property
    def payload_bytes(self) -> int:
        """Returns what the codes and the table take, without names and nodes."""
        return _stored_bytes(self) + self.table.nbytes

    @cached_property
    def _scale(self) -> np.float32:
        most = float(np.abs(self.table).max()) / _STEPS
        scale: np.float32 = np.float32(most if most > _TINY else 2.0**-8)
        return scale


@dataclass(frozen=True, eq=False)
class Plain:
    """Weights left in float32; for the profile float."""

    weights: Array

    def __post_init__(self) -> None:
        if self.weights.dtype != np.float32 or not np.isfinite(self.weights).all():
            raise ExportError(f"weights of type {self.weights.dtype}", remedy="use finite float32 values")

    bits = 32

    def values(self) -> Array:
        """Returns the weights."""
        return self.weights

    @property
    def payload_bytes(self) -> int:
        """Returns what the values take."""
        return self.weights.nbytes


Form: TypeAlias = Uniform | Integer | Rescaled | Table | Plain


def _stored_bytes(form: Uniform | Integer | Rescaled | Table) -> int:
    return form.codes.size if form.as_bytes else form.bits * -(-form.codes.size // 8)


def _check_codes(codes: Codes, bits: int) -> None:
    check_codes(codes, bits)
    if codes.ndim < 2:
        raise ExportError(f"codes of shape {codes.shape}", remedy="leave tensors of one dimension in float")


def _check_channels(codes: Codes, **rows: npt.NDArray[np.generic]) -> None:
    for name, row in rows.items():
        if row.shape != codes.shape[:1]:
            raise ExportError(f"{name} has the shape {row.shape}", remedy=f"give one value a channel: {codes.shape[0]}")
        if not np.isfinite(row.astype(np.float64)).all():
            raise ExportError(f"{name} is not finite in channel {int(np.argmin(np.isfinite(row)))}")


def _check_scale(scale: Array) -> None:
    if scale.dtype != np.float32 or not (scale > 0).all():
        raise ExportError(f"scale {scale.dtype} from {scale.min()}", remedy="use positive float32 scales")
