"""From a form to the nodes that compute its weights, in operators that ONNX Runtime 1.16 folds away when it loads.

The planes of a tensor, [bits, M], are shifted right by 0 .. 7 to [8, bits, M], masked to single bits, and multiplied
by the row (factor * 2^(bits - 1), ..., factor): one whole-number product gives all codes, and everything before it is
one byte an element, which keeps the memory of folding low.

With the packing `native`, codes of 4 and 2 bits are elements of UINT4 and UINT2 instead, and a Cast unpacks them: never
DequantizeLinear, which the runtime does not fold in front of a float layer, but computes at every call.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from export.forms import RESCALED_BITS, Form, Integer, Plain, Rescaled, Table, Uniform, along
from export.refused import ExportError
from export.store.elements import NATIVE_BITS
from export.store.planes import pack
from export.store.sheet import Sheet

__all__ = ["add_float", "add_int8", "add_int8_twin"]


def add_float(sheet: Sheet, name: str, form: Form) -> None:
    """Adds the float32 value `name`."""
    if isinstance(form, Plain):
        sheet.tensor(name, form.weights)
    elif isinstance(form, Table):
        _add_gather(sheet, name, form, form.table)
    elif isinstance(form, Rescaled):
        raise ExportError(f"{name!r} has the form Rescaled", remedy="it is for the profile int8")
    else:
        whole, rank = _whole(sheet, name, form), form.codes.ndim
        steps = sheet.node("Cast", whole, to=TensorProto.FLOAT)
        scale = sheet.tensor(f"{name}/s", along(form.scale, rank))
        if isinstance(form, Integer):
            sheet.node("Mul", steps, scale, named=name)
        else:
            low = sheet.tensor(f"{name}/l", along(form.low, rank))
            sheet.node("Add", sheet.node("Mul", steps, scale), low, named=name)


def add_int8(sheet: Sheet, name: str, form: Form) -> None:
    """Adds the INT8 value `name`."""
    if isinstance(form, Table):
        _add_gather(sheet, name, form, form.int8_table)
    elif isinstance(form, Rescaled):
        sheet.node("Cast", _rescaled(sheet, name, form), named=name, to=TensorProto.INT8)
    elif isinstance(form, Integer) and not form.as_bytes:
        sheet.node("Cast", _whole(sheet, name, form), named=name, to=TensorProto.INT8)
    else:
        add_int8_twin(sheet, name, form)


def add_int8_twin(sheet: Sheet, name: str, form: Form) -> None:
    """Adds the same INT8 value as a plain initialiser."""
    if not isinstance(form, Integer | Rescaled | Table):
        raise ExportError(f"{name!r} has the form {type(form).__name__}", remedy="profile int8 takes whole numbers")
    sheet.tensor(name, form.int8)


def _add_gather(sheet: Sheet, name: str, form: Table, table: npt.NDArray[np.generic]) -> None:
    places = _numbers(sheet, name, form)
    sheet.node("Gather", sheet.tensor(f"{name}/t", table), places, named=name)


def _whole(sheet: Sheet, name: str, form: Uniform | Integer) -> str:
    """Returns the value with the codes of a Uniform or the INT8 numbers of an Integer, of any type of whole numbers."""
    if isinstance(form, Uniform):
        return _numbers(sheet, name, form, wide=False)
    if form.as_bytes:
        return sheet.tensor(f"{name}/q", form.int8)
    codes = _numbers(sheet, name, form, form.factor)
    offset = along(form.offset.astype(np.int32), form.codes.ndim)
    return sheet.node("Add", codes, sheet.tensor(f"{name}/o", offset))


def _rescaled(sheet: Sheet, name: str, form: Rescaled) -> str:
    """Returns the INT32 value whose numbers are INT8: division rounds down, since what it divides is not negative."""
    rank = form.codes.ndim
    product = sheet.node("Mul", _numbers(sheet, name, form), sheet.tensor(f"{name}/f", along(form.factor, rank)))
    moved = sheet.node("Add", product, sheet.tensor(f"{name}/o", along(form.offset, rank)))
    whole = sheet.node("Div", moved, sheet.constant(1 << RESCALED_BITS, np.int32))
    return sheet.node("Sub", whole, sheet.constant(128, np.int32))


def _is_nested(form: Uniform | Integer | Rescaled | Table) -> bool:
    """Tells whether the codes must be planes, since other widths share them."""
    return isinstance(form, Rescaled) or (isinstance(form, Uniform | Integer) and form.spread)


def _numbers(
    sheet: Sheet, name: str, form: Uniform | Integer | Rescaled | Table, factor: int = 1, *, wide: bool = True
) -> str:
    """Returns the INT32 value factor * codes; codes that need no planes may keep their type unless `wide`."""
    codes, bits = form.codes, form.bits
    native = sheet.packing == "native" and bits in NATIVE_BITS and not _is_nested(form)
    if form.as_bytes or native:
        stored = sheet.elements(f"{name}/q", codes, bits) if native else sheet.tensor(f"{name}/q", codes)
        whole = sheet.node("Cast", stored, to=TensorProto.INT32) if wide else stored
        return whole if factor == 1 else sheet.node("Mul", whole, sheet.constant(factor, np.int32))
    planes = sheet.tensor(f"{name}/p", pack(codes, bits))
    shifts = sheet.constant(np.arange(8).reshape(8, 1, 1), np.uint8)
    shifted = sheet.node("BitShift", planes, shifts, direction="RIGHT")
    single = sheet.node("BitwiseAnd", shifted, sheet.constant(1, np.uint8))
    worth = sheet.constant([[factor << place for place in range(bits - 1, -1, -1)]], np.uint8)
    flat = sheet.node("MatMulInteger", worth, single)
    if codes.size % 8:
        flat = sheet.node("Reshape", flat, sheet.constant([-1], np.int64))
        flat = sheet.node("Slice", flat, sheet.constant([0], np.int64), sheet.constant([codes.size], np.int64))
    return sheet.node("Reshape", flat, sheet.constant(codes.shape, np.int64))
