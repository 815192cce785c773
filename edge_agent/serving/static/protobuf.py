"""Reads protobuf's wire format, one level at a time: nothing recurses, every length is checked before it is used.

What is read here must be what any other reader finds: numbers in their shortest form only, every field in the form that
its schema gives it (others pass such a field over), and a field that may be there once only once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from wire.errors import WireError

__all__ = ["Form", "Message", "Purse", "Schema", "garbled", "read_message"]

_MOST_SHIFT = 63
_MASK = (1 << 64) - 1
_LARGEST_INT = 1 << 63
_MOST_FIELDS = 1000
_MOST_IN_ALL = 250_000
Value = int | memoryview


class Form(IntEnum):
    """How a value stands on the wire."""

    NUMBER = 0
    EIGHT = 1
    BYTES = 2
    FOUR = 5


Schema = Mapping[int, tuple[Form, ...]]
"""The fields that a message may have, and the forms of each."""


@dataclass(slots=True)
class Purse:
    """How many fields may still be read of one file: each costs time and memory, however few bytes it has."""

    left: int = _MOST_IN_ALL


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its fields by number, in order. Numbers are ints; everything else is a view of the bytes."""

    place: str
    fields: Mapping[int, list[Value]]
    purse: Purse

    def number(self, field: int, default: int = 0) -> int:
        """Returns a whole number that is there once or not at all, read as signed."""
        value = self._one(field)
        if value is None:
            return default
        if not isinstance(value, int):
            raise garbled(self.place, f"field {field} is not a number")
        return value - (1 << 64) if value >= _LARGEST_INT else value

    def data(self, field: int) -> memoryview | None:
        """Returns the bytes of a field that is there once, or None."""
        value = self._one(field)
        if isinstance(value, int):
            raise garbled(self.place, f"field {field} is a number")
        return value

    def text(self, field: int, most: int = 1024) -> str:
        """Returns a text of at most `most` bytes; what is not there is empty."""
        data = self.data(field)
        return "" if data is None else _text(data, self.place, most)

    def texts(self, field: int, most: int = 1024) -> list[str]:
        """Returns every text of a repeated field."""
        return [_text(data, self.place, most) for data in self.all(field)]

    def all(self, field: int) -> list[memoryview]:
        """Returns the bytes of every entry of a repeated field."""
        found = self.fields.get(field, [])
        views = [value for value in found if not isinstance(value, int)]
        if len(views) < len(found):
            raise garbled(self.place, f"field {field} is a number")
        return views

    def numbers(self, field: int) -> Iterator[int]:
        """Yields the whole numbers of a repeated field, packed or not, read as signed."""
        for value in self.fields.get(field, []):
            for one in [value] if isinstance(value, int) else _packed(value, self.place):
                yield one - (1 << 64) if one >= _LARGEST_INT else one

    def read(self, data: memoryview, place: str, schema: Schema, most: int = _MOST_FIELDS) -> Message:
        """Returns a message within this one; the fields of all count together."""
        return read_message(data, place, schema, most, self.purse)

    def __contains__(self, field: int) -> bool:
        return field in self.fields

    def _one(self, field: int) -> Value | None:
        found = self.fields.get(field, [])
        if len(found) > 1:  # a reader that merges them and one that takes the last would see two different files
            raise garbled(self.place, f"field {field} is there {len(found)} times")
        return found[0] if found else None


def garbled(place: str, what: str) -> WireError:
    """Returns the error for a file that is not what it should be."""
    return WireError(f"{place}: {what}", code="E-MODEL-GRAPH", remedy="export the model again with this toolkit")


def read_message(
    data: memoryview, place: str, schema: Schema, most: int = _MOST_FIELDS, purse: Purse | None = None
) -> Message:
    """Returns one level of a message; fields that the schema does not have, or more than `most`, are refused."""
    purse = purse or Purse()
    fields: dict[int, list[Value]] = {}
    at = count = 0
    while at < len(data):
        tag, at = _varint(data, at, place)
        field, kind = tag >> 3, tag & 7
        if field not in schema:
            raise garbled(place, f"field {field} is not one that a model needs")
        if kind not in schema[field]:
            raise garbled(place, f"field {field} has wire type {kind} at byte {at}")
        count, purse.left = count + 1, purse.left - 1
        if count > most:
            raise garbled(place, f"more than {most} fields")
        if purse.left < 0:
            raise garbled(place, "too many fields in the whole file")
        value, at = _value(data, at, kind, place)
        fields.setdefault(field, []).append(value)
    return Message(place, fields, purse)


def _value(data: memoryview, at: int, kind: int, place: str) -> tuple[Value, int]:
    if kind == Form.NUMBER:
        return _varint(data, at, place)
    if kind == Form.BYTES:
        size, at = _varint(data, at, place)
    else:
        size = 8 if kind == Form.EIGHT else 4
    if size > len(data) - at:
        raise garbled(place, f"{size} bytes announced at byte {at}, {len(data) - at} are there")
    return data[at : at + size], at + size


def _varint(data: memoryview, at: int, place: str) -> tuple[int, int]:
    value = 0
    for shift in range(0, _MOST_SHIFT + 1, 7):
        if at >= len(data):
            raise garbled(place, f"it ends within a number, at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if shift and not byte:  # another reader may take it for something else, or for the magic of another format
                raise garbled(place, f"a number is longer than it need be, at byte {at}")
            break
    else:
        raise garbled(place, f"a number of more than 64 bits ends at byte {at}")
    if value > _MASK:
        raise garbled(place, f"a number of more than 64 bits ends at byte {at}")
    return value, at


def _packed(data: memoryview, place: str) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at, place)
        yield value


def _text(data: memoryview, place: str, most: int) -> str:
    if len(data) > most:
        raise garbled(place, f"a text of {len(data)} bytes, at most {most} are read")
    try:
        return bytes(data).decode()
    except UnicodeDecodeError as exc:
        raise garbled(place, "a text that is not UTF-8") from exc
