"""Two places for a model, and one small file that says which of them serves: the pointer.

Slot a and slot b each hold model.onnx and facts.json, and a file `healthy` once the model proved itself. The pointer is
written whole, so that at any moment it names the old model or the new one.

stage      into the slot that does not serve          pointer unchanged
switch     the pointer names the new slot, "trying"   and the one before as the way back
commit     the new slot is healthy, "good"
fall_back  the pointer names the one before again
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from wire.errors import StateError
from wire.pieces.assembly import digest_file, write_whole
from wire.spec import canonical_json

__all__ = [
    "MODEL_FILE",
    "POINTER",
    "Pointer",
    "Slot",
    "alone",
    "commit",
    "fall_back",
    "file_digest",
    "go_back",
    "healthy_slot",
    "pin",
    "read_pointer",
    "read_slot",
    "settle",
    "stage",
    "switch",
]

POINTER, MODEL_FILE = "pointer.json", "model.onnx"
_LOCK = "models.lock"
_FACTS, _HEALTHY, _NAMES = "facts.json", "healthy", ("a", "b")
_MOST_STARTS = 2


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which slot serves. `starts` counts the agent's starts while it is only tried; `pinned` is a version or 0."""

    serving: str
    trying: bool = False
    previous: str = ""
    starts: int = 0
    pinned: int = 0


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that holds a model: what is known of it, and whether it proved itself."""

    name: str
    path: Path
    facts: Mapping[str, Any]
    healthy: bool

    @property
    def version(self) -> int:
        """Returns the version of the manifest that it came with."""
        return int(self.facts["version"])


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keeps everybody else from changing the slots: the agent and a person's commands are two processes."""
    with (folder / _LOCK).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_pointer(folder: Path) -> Pointer | None:
    """Returns the pointer, or None if there is none that can be read."""
    try:
        table = json.loads((folder / POINTER).read_text())
        pointer = Pointer(**table)
    except (OSError, ValueError, TypeError):
        return None
    kinds = (str, bool, str, int, int)
    right = all(type(value) is kind for value, kind in zip(asdict(pointer).values(), kinds, strict=True))
    return pointer if right and pointer.serving in _NAMES and pointer.previous in ("", *_NAMES) else None


def read_slot(folder: Path, name: str) -> Slot | None:
    """Returns a slot's facts, or None where it is empty; the model's own bytes are not looked at."""
    place = folder / name
    try:
        facts = json.loads((place / _FACTS).read_text())
        whole = {"version": int, "digest": str, "variant": str, "manifest": str}
        if not all(type(facts[key]) is kind for key, kind in whole.items()):
            return None
        healthy = (place / _HEALTHY).exists() and (place / _HEALTHY).read_text() == facts["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Slot(name, place / MODEL_FILE, facts, healthy) if (place / MODEL_FILE).exists() else None


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file as it can be read now; empty if it cannot."""
    try:
        return digest_file(path)
    except OSError:
        return ""


def healthy_slot(folder: Path) -> Slot | None:
    """Returns the last good model: the one that serves, or while another is tried the one before."""
    pointer = read_pointer(folder)
    if pointer is None:
        return None
    return read_slot(folder, pointer.previous if pointer.trying else pointer.serving)


def stage(folder: Path, source: Path, facts: Mapping[str, Any], durable: bool = True) -> str:
    """Returns the slot that now holds the file `source`, which stays; its digest was read again from the slot."""
    pointer = read_pointer(folder)
    name = "a" if pointer is None or pointer.serving != "a" else "b"
    if pointer and pointer.trying and pointer.previous == name:
        raise StateError(f"slot {name} is the way back of a model that is being tried")
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    for old in (_HEALTHY, _FACTS, MODEL_FILE):  # the facts first: without them the slot counts as empty
        (place / old).unlink(missing_ok=True)
    _bring(source, place / MODEL_FILE, durable)
    if file_digest(place / MODEL_FILE) != facts["digest"]:
        raise StateError(f"{place / MODEL_FILE} does not hold what was written to it", code="E-DISK")
    write_whole(place / _FACTS, canonical_json(dict(facts)), durable)
    return name


def switch(folder: Path, name: str, durable: bool = True) -> Pointer:
    """Makes a slot serve, on trial."""
    old = read_pointer(folder)
    return _point(folder, Pointer(name, True, old.serving if old else "", 0, 0), durable)


def commit(folder: Path, durable: bool = True) -> Pointer:
    """Makes the model that is tried the good one."""
    pointer = _existing(folder)
    slot = read_slot(folder, pointer.serving)
    if slot is None:
        raise StateError(f"slot {pointer.serving} in {folder} is empty")
    write_whole(folder / slot.name / _HEALTHY, str(slot.facts["digest"]).encode(), durable)
    return _point(folder, replace(pointer, trying=False, starts=0), durable)


def fall_back(folder: Path, durable: bool = True) -> Pointer | None:
    """Makes the model before serve again; without one none serves, as before the first."""
    pointer = _existing(folder)
    if pointer.previous and _whole(folder, pointer.previous):
        return _point(folder, Pointer(pointer.previous), durable)
    (folder / POINTER).unlink()
    return None


def pin(folder: Path, version: int, durable: bool = True) -> Pointer:
    """Makes the healthy model of this version serve and stay, or with 0 lets the next offer in again."""
    pointer = _existing(folder)
    if version == 0:
        return _point(folder, replace(pointer, pinned=0), durable)
    held = [slot for slot in (read_slot(folder, name) for name in _NAMES) if slot and slot.healthy]
    found = [slot for slot in held if slot.version == version and _whole(folder, slot.name)]
    if not found:
        have = ", ".join(str(slot.version) for slot in held) or "none"
        raise StateError(f"version {version} is not on this device", remedy=f"healthy versions here: {have}")
    other = next((slot.name for slot in held if slot.name != found[0].name), "")
    return _point(folder, Pointer(found[0].name, False, other, 0, version), durable)


def go_back(folder: Path, durable: bool = True) -> Slot:
    """Returns the model that served until now; the healthy one before it serves from here on."""
    pointer = _existing(folder)
    serving, other = (read_slot(folder, name) for name in (pointer.serving, "b" if pointer.serving == "a" else "a"))
    if serving is None:
        raise StateError(f"slot {pointer.serving} in {folder} is empty", remedy="restart the agent")
    if other is None or not other.healthy or other.version > serving.version or not _whole(folder, other.name):
        raise StateError(
            "there is no healthy model to go back to", remedy="roll out an older content, or pin a version"
        )
    _point(folder, Pointer(other.name, previous=serving.name if serving.healthy else ""), durable)
    return serving


def settle(folder: Path, durable: bool = True) -> tuple[Pointer | None, str]:
    """Puts right what a kill or a damaged file left, at a start; returns the pointer and in words what was done."""
    pointer = read_pointer(folder)
    if pointer is None:
        held = [slot for name in _NAMES if (slot := read_slot(folder, name)) and slot.healthy and _whole(folder, name)]
        if not held:
            return None, ""
        newest = max(held, key=lambda slot: slot.version)
        return _point(folder, Pointer(newest.name), durable), "the pointer could not be read"
    if not _whole(folder, pointer.serving):
        other = "b" if pointer.serving == "a" else "a"
        if not _whole(folder, other):
            return pointer, "neither slot holds a whole model"
        return _point(folder, Pointer(other), durable), f"slot {pointer.serving} is damaged"
    if not pointer.trying:
        return pointer, ""
    if pointer.starts >= _MOST_STARTS:
        return fall_back(folder, durable), f"the agent ended {pointer.starts + 1} times while it was tried"
    return _point(folder, replace(pointer, starts=pointer.starts + 1), durable), ""


def _existing(folder: Path) -> Pointer:
    pointer = read_pointer(folder)
    if pointer is None:
        raise StateError(f"no model serves in {folder}", remedy="offer one: bitfleet rollout start")
    return pointer


def _whole(folder: Path, name: str) -> bool:
    slot = read_slot(folder, name)
    return slot is not None and file_digest(slot.path) == slot.facts["digest"]


def _point(folder: Path, pointer: Pointer, durable: bool) -> Pointer:
    write_whole(folder / POINTER, canonical_json(asdict(pointer)), durable)
    return pointer


def _bring(source: Path, target: Path, durable: bool) -> None:
    """Gives a file a second name, or copies it where the file system has no such thing, and forces it to the disk."""
    try:
        os.link(source, target)
    except OSError:
        draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            shutil.copyfile(source, draft)
            draft.replace(target)
        except OSError:
            with suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
    if durable:
        with target.open("rb") as file:
            os.fsync(file.fileno())
