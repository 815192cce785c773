"""What a person sets: TOML read into frozen dataclasses, and the folders and files that a command line names.

An unknown key is an error that names the nearest known one; what the system says of a place, one that names the place.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from wire.errors import ConfigError, StateError, said_by

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "check_json",
    "check_range",
    "check_writable",
    "leave_json",
    "make_folder",
    "parse_setting",
    "read_toml",
    "settings_from",
    "usable",
]

T = TypeVar("T")


def read_toml(path: Path) -> dict[str, Any]:
    """Returns the table in a TOML file."""
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text())
        return table
    except OSError as exc:
        raise ConfigError(f"{path} cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} is not TOML: {exc}") from exc


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raises ConfigError unless a setting is within its limits."""
    if not low <= value <= high:
        raise ConfigError(f"{name} = {value}", remedy=f"choose {low} to {high}")


def parse_setting(text: str) -> tuple[list[str], Any]:
    """Returns the key and the value of KEY=VALUE; a value that is not TOML is taken as text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"setting {text!r}", remedy="write it as key=value, for example rounds=20")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    return key.strip().split("."), parsed


def settings_from(cls: type[T], table: Mapping[str, Any], place: str) -> T:
    """Returns a dataclass filled from a table; `place` names the file or section in errors."""
    hints = get_type_hints(cls)
    known = {item.name: item for item in fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1, 0.5)
            remedy = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise ConfigError(f"{place}: unknown key {key!r}", remedy=remedy)
    for name, item in known.items():
        if name not in table and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{place}: key {name!r} is missing")
    return cls(**{key: _value(hints[key], value, f"{place}: {key}") for key, value in table.items()})


def _value(kind: Any, value: Any, place: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _value(next(part for part in get_args(kind) if part is not type(None)), value, place)
    if is_dataclass(kind) and isinstance(kind, type):
        return settings_from(kind, _expect(value, dict, place, "a table"), place)
    if origin is tuple:
        inner = get_args(kind)[0]
        return tuple(_value(inner, item, place) for item in _expect(value, list, place, "a list"))
    if origin is not None:
        return _expect(value, dict, place, "a table")
    if kind is float and type(value) is int:
        return float(value)
    if kind is Path:
        return Path(_expect(value, str, place, "a path")).expanduser()
    if isinstance(kind, type) and (type(value) is not kind):
        raise ConfigError(f"{place} = {value!r} is not {_named(kind)}")
    return value


def _expect(value: Any, kind: type[T], place: str, name: str) -> T:
    if not isinstance(value, kind):
        raise ConfigError(f"{place} = {value!r} is not {name}")
    return value


def _named(kind: type) -> str:
    return {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}.get(kind, kind.__name__)


@contextmanager
def usable(path: Path, option: str) -> Iterator[None]:
    """Raises StateError, naming `path` and what to do, where the system lets nobody do what is done within."""
    try:
        yield
    except OSError as exc:
        remedy = f"name a folder of your own with {option}, or see whose this is and whether it may be written"
        raise StateError(f"{path} cannot be used: {said_by(exc)}", remedy=remedy) from exc


def make_folder(folder: Path, option: str) -> None:
    """Makes a folder that is not there yet; `option` is what a person named it with."""
    with usable(folder, option):
        folder.mkdir(parents=True, exist_ok=True)


def check_json(path: Path | None) -> None:
    """Raises ConfigError if `--json FILE` cannot be written in the end: what leads there shall not be for nothing."""
    if path is not None:
        check_writable(path, "--json")


def check_writable(path: Path, option: str) -> None:
    """Raises ConfigError, naming the `option` that names it, if a file cannot be written there."""
    folder = path.absolute().parent
    if not _is_folder(folder):
        remedy = "make it first, or see whether you may enter it"
        raise ConfigError(f"{option} {path}: there is no folder {folder}", remedy=remedy)
    if _is_folder(path):
        raise ConfigError(f"{option} {path} is a folder", remedy="name a file")
    there = os.access(path, os.F_OK)
    if not os.access(path if there else folder, os.W_OK if there else os.W_OK | os.X_OK):
        what = f"{option} {path} may not be written" if there else f"{option} {path}: {folder} may not be written"
        raise ConfigError(what, remedy="name a file that you may write")


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # it lies in one that may not be entered
        return False


def leave_json(path: Path | None, facts: Any) -> None:
    """Writes figures where `--json FILE` says, if it was given."""
    if path is None:
        return
    try:
        path.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    except OSError as exc:
        remedy = "name a file that may be written; what was made is there"
        raise StateError(f"--json {path} cannot be written: {said_by(exc)}", remedy=remedy) from exc
