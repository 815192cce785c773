"""Readers of two foreign file formats that NumPy alone does not read safely.

`read_idx`: the IDX format of MNIST and its kin. `read_object_array`: a .npy file that holds Python objects, as the
seglearn wheel has it. NumPy reads such a file by unpickling, which may run any code the file names. Here the opcodes
are listed by `pickletools`, which only disassembles, and are replayed by a machine that knows lists, dicts, tuples,
texts, numbers and the four names that a NumPy array consists of. Nothing is imported, nothing is called: the names
stay texts until `_plain` turns what they stand for into bytes, a dtype or an array. Any other opcode or name is an
error. The caller has checked the file's SHA-256 before this runs, so this is the second lock, not the only one.
"""

from __future__ import annotations

import gzip
import pickletools
import zlib
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from wire.errors import DataError

__all__ = ["read_idx", "read_object_array"]

_MARK = object()
_ENCODE, _DTYPE, _ARRAY = "_codecs encode", "numpy dtype", "numpy.core.multiarray _reconstruct"
_NAMES = {_ENCODE, _DTYPE, _ARRAY, "numpy ndarray"}


def read_idx(packed: bytes, place: str) -> npt.NDArray[np.uint8]:
    """Returns the bytes in a gzipped IDX file, in its own shape."""
    try:
        data = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as exc:
        raise DataError(f"{place} cannot be read: {exc}", remedy="delete it and fetch it again") from exc
    sides = [int.from_bytes(data[at : at + 4], "big") for at in range(4, 4 + 4 * (data[3:4] or b"\0")[0], 4)]
    if data[:3] != b"\0\0\x08" or len(data) != 4 + 4 * len(sides) + prod(sides):
        raise DataError(f"{place} is not an IDX file of bytes", remedy="delete it and fetch it again")
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * len(sides)).reshape(sides)


def read_object_array(data: bytes, place: str) -> Any:
    """Returns what the 0-dimensional object array in a .npy file holds, made of plain values and NumPy arrays."""
    try:
        stream = BytesIO(data)
        np.lib.format.read_magic(stream)
        np.lib.format.read_array_header_1_0(stream)
        return _plain(_replayed(stream.read()))[0]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as exc:
        raise DataError(f"{place} is not the object array expected: {exc}", remedy="fetch it again") from exc


@dataclass(eq=False)
class _Made:
    """Stands for `name(*args)`, with the state that was given to it afterwards."""

    name: str
    args: tuple[Any, ...]
    state: Any = None


def _replayed(data: bytes) -> Any:
    """Returns the value that the opcodes build, with a _Made wherever a pickle would have called something."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, value, _ in pickletools.genops(data):
        _step(opcode.name, value, stack, memo)
    (result,) = stack
    return result


def _step(opcode: str, value: Any, stack: list[Any], memo: dict[int, Any]) -> None:  # noqa: PLR0912  a line an opcode
    match opcode:
        case "PROTO" | "STOP":
            pass
        case "GLOBAL" if value in _NAMES:
            stack.append(value)
        case "BININT" | "BININT1" | "BININT2" | "BINUNICODE":
            stack.append(value)
        case "NONE" | "NEWTRUE" | "NEWFALSE":
            stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode])
        case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
            stack.append({"EMPTY_TUPLE": (), "EMPTY_LIST": [], "EMPTY_DICT": {}}[opcode])
        case "MARK":
            stack.append(_MARK)
        case "TUPLE":
            stack.append(tuple(_since_mark(stack)))
        case "TUPLE1" | "TUPLE2" | "TUPLE3":
            count = int(opcode[-1])
            stack[-count:] = [tuple(stack[-count:])]
        case "BINPUT" | "LONG_BINPUT":
            memo[value] = stack[-1]
        case "BINGET" | "LONG_BINGET":
            stack.append(memo[value])
        case "APPEND":
            last = stack.pop()
            stack[-1].append(last)
        case "APPENDS":
            items = _since_mark(stack)
            stack[-1].extend(items)
        case "SETITEMS":
            items = _since_mark(stack)
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
        case "REDUCE":
            args = stack.pop()
            stack[-1] = _Made(stack[-1], args)
        case "BUILD":
            state = stack.pop()
            stack[-1].state = state
        case _:
            raise ValueError(f"opcode {opcode} {str(value)[:60]!r} is not admitted")


def _since_mark(stack: list[Any]) -> list[Any]:
    marks = [at for at, item in enumerate(stack) if item is _MARK]
    items = stack[marks[-1] + 1 :]
    del stack[marks[-1] :]
    return items


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if not isinstance(value, _Made):
        return value
    if value.name == _ENCODE:
        return value.args[0].encode("latin1")
    if value.name == _ARRAY:
        return _array(*value.state[1:])
    raise ValueError(f"{value.name} stands where a value should")


def _array(shape: tuple[int, ...], kind: _Made, by_column: bool, content: Any) -> Any:
    """Returns the array, or the list of its elements if they are objects."""
    if kind.args[0] == "O8":
        return _plain(content)
    if kind.name != _DTYPE or kind.args[0] not in ("f8", "i8"):
        raise ValueError(f"{kind.name} {kind.args} is not a dtype that is admitted")
    flat = np.frombuffer(_plain(content), dtype=np.dtype(kind.state[1] + kind.args[0]))
    return flat.reshape(shape, order="F" if by_column else "C")
