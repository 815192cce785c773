"""Reads protobuf's wire format, one level at a time: nothing recurses, every length is checked before it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from wire.errors import WireError

__all__ = ["Message", "garbled", "read_message"]

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_MOST_SHIFT = 63
_MASK = (1 << 64) - 1
_LARGEST_INT = 1 << 63
Value = int | memoryview


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its fields by number, in order. Numbers are ints; everything else is a view of the bytes."""

    place: str
    fields: Mapping[int, list[Value]]

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


def read_message(data: memoryview, place: str, known: frozenset[int], most: int = 100_000) -> Message:
    """Returns one level of a message; fields that are not in `known`, or more than `most` of them, are refused."""
    fields: dict[int, list[Value]] = {}
    at = count = 0
    while at < len(data):
        tag, at = _varint(data, at, place)
        field, kind = tag >> 3, tag & 7
        if field not in known:
            raise garbled(place, f"field {field} is not one that a model needs")
        count += 1
        if count > most:
            raise garbled(place, f"more than {most} fields")
        value, at = _value(data, at, kind, place)
        fields.setdefault(field, []).append(value)
    return Message(place, fields)


def _value(data: memoryview, at: int, kind: int, place: str) -> tuple[Value, int]:
    if kind == _VARINT:
        return _varint(data, at, place)
    if kind == _BYTES:
        size, at = _varint(data, at, place)
    elif kind in (_EIGHT, _FOUR):
        size = 8 if kind == _EIGHT else 4
    else:
        raise garbled(place, f"wire type {kind} at byte {at}")
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
            return value & _MASK, at
    raise garbled(place, f"a number of more than 64 bits ends at byte {at}")


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
