"""Two places for a model, and one small file that says which of them serves: the pointer.

Slot a and slot b each hold model.onnx and facts.json, and a file `healthy` once the model proved itself. The pointer is
written whole, so that at any moment it names the old model or the new one.

stage      into the slot that does not serve          pointer unchanged
switch     the pointer names the new slot, "trying"   and the one before as the way back
commit     the new slot is healthy, "good"
fall_back  the pointer names the one before again, or another that proved itself; the slot that is left is emptied

What is rolled back is barred first, so that a kill at any moment cannot bring it back: see trial/barred.py.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge_agent.serving.trial.barred import bar_model, is_out, lift
from wire.errors import StateError
from wire.pieces.assembly import digest_file, link_whole, write_whole
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
    "pin",
    "read_pointer",
    "read_slot",
    "renew",
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


def stage(folder: Path, source: Path, facts: Mapping[str, Any], durable: bool = True) -> str:
    """Returns the slot that now holds the file `source`, which stays; its digest was read again from the slot."""
    pointer = read_pointer(folder)
    spared = pointer.serving if pointer else _proven(folder) or "b"
    name = "b" if spared == "a" else "a"
    if pointer and pointer.trying and pointer.previous == name and _whole(folder, name):
        raise StateError(f"slot {name} is the way back of a model that is being tried")
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    _empty(place)
    (place / MODEL_FILE).unlink(missing_ok=True)
    link_whole(source, place / MODEL_FILE, durable)
    if file_digest(place / MODEL_FILE) != facts["digest"]:
        raise StateError(f"{place / MODEL_FILE} does not hold what was written to it", code="E-DISK")
    write_whole(place / _FACTS, canonical_json(dict(facts)), durable)
    return name


def renew(folder: Path, name: str, facts: Mapping[str, Any], durable: bool = True) -> None:
    """Says anew why the model in a slot was chosen, if it is still there; on a full disk what was said stays."""
    with alone(folder), suppress(OSError):
        slot = read_slot(folder, name)
        if slot and slot.facts["digest"] == facts["digest"]:
            write_whole(folder / name / _FACTS, canonical_json(dict(facts)), durable)


def switch(folder: Path, name: str, durable: bool = True) -> Pointer:
    """Makes a slot serve, on trial."""
    old = read_pointer(folder) or Pointer("")
    return _point(folder, Pointer(name, True, old.serving, 0, old.pinned), durable)


def commit(folder: Path, durable: bool = True) -> Pointer:
    """Makes the model that is tried the good one."""
    pointer = _tried(folder)
    slot = read_slot(folder, pointer.serving)
    if slot is None:
        raise StateError(f"slot {pointer.serving} in {folder} is empty")
    write_whole(folder / slot.name / _HEALTHY, str(slot.facts["digest"]).encode(), durable)
    return _point(folder, replace(pointer, trying=False, starts=0), durable)


def fall_back(folder: Path, durable: bool = True, lasting: bool = True) -> Pointer | None:
    """Makes a model that proved itself serve again, first the one before; without one none serves.

    What is left never comes again, unless the reason says nothing of it: then `lasting` is False.
    """
    pointer = _tried(folder)
    left = read_slot(folder, pointer.serving)
    there = replace(pointer, trying=False, previous="", starts=0)
    before = pointer.previous if pointer.previous != pointer.serving else ""
    back = before if before and _whole(folder, before) else _proven(folder, but=pointer.serving)
    slot = read_slot(folder, back) if back else None
    if lasting and left is not None:
        bar_model(folder, left.facts, slot.facts if slot else None, durable)
    if back:
        now: Pointer | None = _point(folder, replace(there, serving=back), durable)
    elif pointer.pinned:
        now = _point(folder, there, durable)  # to the slot that is emptied below: the pin stays
    else:
        (folder / POINTER).unlink()
        now = None
    _leave(folder / pointer.serving)
    return now


def pin(folder: Path, version: int, durable: bool = True) -> Pointer:
    """Makes the healthy model of this version serve and stay, or with 0 lets the next offer in again.

    It may be one that was rolled back: a person wants it.
    """
    pointer = _existing(folder)
    if version == 0:
        return _point(folder, replace(pointer, pinned=0), durable)
    held = [slot for slot in (read_slot(folder, name) for name in _NAMES) if slot and slot.healthy]
    found = [slot for slot in held if slot.version == version and _whole(folder, slot.name)]
    if not found:
        have = ", ".join(str(slot.version) for slot in held) or "none"
        raise StateError(f"version {version} is not on this device", remedy=f"healthy versions here: {have}")
    other = next((slot.name for slot in held if slot.name != found[0].name), "")
    pointer = _point(folder, Pointer(found[0].name, False, other, 0, version), durable)
    lift(folder, found[0].facts, durable)
    return pointer


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
    bar_model(folder, serving.facts, other.facts, durable)
    _point(folder, Pointer(other.name, previous=serving.name if serving.healthy else ""), durable)
    if not serving.healthy:
        _leave(folder / serving.name)
    return serving


def settle(folder: Path, durable: bool = True) -> tuple[Pointer | None, str]:
    """Puts right what a kill or a damaged file left, at a start; returns the pointer and in words what was done."""
    pointer = read_pointer(folder)
    if pointer is None:
        name = _proven(folder)
        return (_point(folder, Pointer(name), durable), "the pointer could not be read") if name else (None, "")
    slot = read_slot(folder, pointer.serving)
    if slot is None or not _whole(folder, slot.name):
        return _make_do(folder, pointer, durable)
    if not pointer.trying:
        return pointer, ""
    if is_out(folder, slot.facts):
        return fall_back(folder, durable), "the agent ended while it was rolled back"
    if pointer.starts >= _MOST_STARTS:
        return fall_back(folder, durable), f"the agent ended {pointer.starts + 1} times while it was tried"
    return _point(folder, replace(pointer, starts=pointer.starts + 1), durable), ""


def _make_do(folder: Path, pointer: Pointer, durable: bool) -> tuple[Pointer, str]:
    """Takes the other slot, since the one that serves is damaged: a model that never proved itself only on trial."""
    name = "b" if pointer.serving == "a" else "a"
    slot = read_slot(folder, name)
    if slot is None or not _whole(folder, name):
        return pointer, "neither slot holds a whole model"
    there, what = replace(pointer, serving=name, previous="", starts=0), f"slot {pointer.serving} is damaged"
    if slot.healthy:
        return _point(folder, replace(there, trying=False), durable), what
    if is_out(folder, slot.facts):
        return pointer, f"{what}, and what slot {name} holds was rolled back"
    return _point(folder, replace(there, trying=True), durable), f"{what}, so what slot {name} holds is tried"


def _existing(folder: Path) -> Pointer:
    pointer = read_pointer(folder)
    if pointer is None:
        raise StateError(f"no model serves in {folder}", remedy="offer one: bitfleet rollout start")
    return pointer


def _tried(folder: Path) -> Pointer:
    pointer = _existing(folder)
    if not pointer.trying:
        raise StateError(f"slot {pointer.serving} in {folder} is not on trial")
    return pointer


def _proven(folder: Path, but: str = "") -> str:
    """Returns the slot of the newest whole model that proved itself, or nothing.

    One that a person rolled back it returns only if there is no other.
    """
    held = [slot for name in _NAMES if name != but and (slot := read_slot(folder, name)) and slot.healthy]
    whole = [slot for slot in held if _whole(folder, slot.name)]
    best = max(whole, key=lambda slot: (not is_out(folder, slot.facts), slot.version), default=None)
    return best.name if best else ""


def _leave(place: Path) -> None:
    """Empties a slot that serves no more; where the disk does not let it, what is barred still stays away."""
    with suppress(OSError):
        _empty(place)


def _empty(place: Path) -> None:
    """Makes a slot count as empty."""
    for name in (_HEALTHY, _FACTS):
        (place / name).unlink(missing_ok=True)


def _whole(folder: Path, name: str) -> bool:
    slot = read_slot(folder, name)
    return slot is not None and file_digest(slot.path) == slot.facts["digest"]


def _point(folder: Path, pointer: Pointer, durable: bool) -> Pointer:
    write_whole(folder / POINTER, canonical_json(asdict(pointer)), durable)
    return pointer
