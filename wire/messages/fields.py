"""Reads fields out of a decoded header, each with its type and its limits; anything else is a WireError."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from wire.errors import WireError

__all__ = [
    "DEVICE_ID",
    "choice_field",
    "digest_field",
    "flag_field",
    "float_field",
    "id_field",
    "int_field",
    "known_field",
    "list_field",
    "objects_field",
    "text_field",
]

DEVICE_ID = re.compile(r"[a-z0-9-]{1,32}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_Item = TypeVar("_Item")


def text_field(header: Mapping[str, Any], name: str, most: int = 200) -> str:
    """Returns a text of at most `most` characters."""
    value = header.get(name)
    if not isinstance(value, str) or len(value) > most:
        raise WireError(f"field {name!r} is {_short(value)}, expected a text of at most {most} characters")
    return value


def choice_field(header: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str:
    """Returns one of `choices`."""
    value = text_field(header, name)
    if value not in choices:
        raise WireError(f"field {name!r} is {_short(value)}, expected one of {', '.join(choices)}")
    return value


def id_field(header: Mapping[str, Any], name: str) -> str:
    """Returns an id of a device, a fleet or a run."""
    value = text_field(header, name)
    if not DEVICE_ID.fullmatch(value):
        raise WireError(f"field {name!r} is {_short(value)}, expected 1 to 32 of a-z, 0-9 and hyphen")
    return value


def digest_field(header: Mapping[str, Any], name: str, empty: bool = False) -> str:
    """Returns a SHA-256 in hex, or an empty text where that is allowed."""
    value = text_field(header, name)
    if not _DIGEST.fullmatch(value) and not (empty and value == ""):
        raise WireError(f"field {name!r} is {_short(value)}, expected 64 hex digits")
    return value


def flag_field(header: Mapping[str, Any], name: str) -> bool:
    """Returns true or false; a field that is not there is false."""
    value = header.get(name, False)
    if not isinstance(value, bool):
        raise WireError(f"field {name!r} is {_short(value)}, expected true or false")
    return value


def int_field(header: Mapping[str, Any], name: str, low: int, high: int) -> int:
    """Returns a whole number in [low, high]."""
    value = header.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise WireError(f"field {name!r} is {_short(value)}, expected a whole number from {low} to {high}")
    return value


def float_field(header: Mapping[str, Any], name: str, low: float, high: float) -> float:
    """Returns a finite number in [low, high]."""
    value = header.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise WireError(f"field {name!r} is {_short(value)}, expected a number from {low} to {high}")
    if not math.isfinite(value):
        raise WireError(f"field {name!r} is {_short(value)}, expected a finite number")
    return float(value)


def known_field(header: Mapping[str, Any], name: str, most: float) -> float | None:
    """Returns a number from 0 to `most`, or None where it is not known."""
    return None if header.get(name) is None else float_field(header, name, 0, most)


def list_field(
    header: Mapping[str, Any], name: str, least: int, most: int, read: Callable[[Mapping[str, Any]], _Item]
) -> tuple[_Item, ...]:
    """Returns a list of `least` to `most` entries; `read` takes each as if it were the field of this name itself."""
    return tuple(read({name: value}) for value in _entries(header, name, least, most))


def objects_field(header: Mapping[str, Any], name: str, least: int, most: int) -> list[Mapping[str, Any]]:
    """Returns a list of `least` to `most` objects."""
    values = _entries(header, name, least, most)
    if not all(isinstance(value, dict) for value in values):
        raise WireError(f"field {name!r} holds something that is not an object")
    return values


def _entries(header: Mapping[str, Any], name: str, least: int, most: int) -> list[Any]:
    values = header.get(name)
    if not isinstance(values, list) or not least <= len(values) <= most:
        raise WireError(f"field {name!r} is not a list of {least} to {most} entries")
    return values


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
