"""The manifests that were rolled back on this device: none of them is put into a slot again, unless a person pins it.

How the last offer ended does not do for that: another offer, other settings and another runtime make it void. Only the
newest of them are kept; what is older than those is under the version floor.
"""

from __future__ import annotations

import json
from pathlib import Path

from wire.errors import StateError
from wire.events import log_event
from wire.pieces.assembly import write_whole
from wire.spec import canonical_json

__all__ = ["bar", "barred", "is_barred", "lift"]

_FILE = "rolled-back.json"
_MOST = 32


def barred(folder: Path) -> tuple[str, ...]:
    """Returns the digests of the manifests, oldest first; a file that cannot be read is an error: they are unknown."""
    try:
        held = json.loads((folder / _FILE).read_text())["manifests"]
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise _unreadable(folder, exc) from exc
    if not isinstance(held, list) or not all(isinstance(one, str) for one in held):
        raise _unreadable(folder, f"{held!r:.60}")
    return tuple(held)


def is_barred(folder: Path, manifest: str) -> bool:
    """Tells it of what is in a slot already. Unknown is no there: it is no reason to be without a model."""
    try:
        return manifest in barred(folder)
    except StateError as exc:
        log_event("model-trouble", code=exc.code, reason=exc.message)
        return False


def bar(folder: Path, manifest: str, durable: bool = True) -> None:
    """Adds a manifest; a file that cannot be read is begun anew, since it must not keep a bad model in service."""
    try:
        held = barred(folder)
    except StateError as exc:
        log_event("model-trouble", code=exc.code, reason=exc.message)
        held = ()
    if manifest not in held[-1:]:
        _write(folder, (*(one for one in held if one != manifest), manifest)[-_MOST:], durable)


def lift(folder: Path, manifest: str, durable: bool = True) -> None:
    """Takes a manifest off, since a person wants it; of a file that cannot be read the next bar makes another."""
    try:
        held = barred(folder)
    except StateError as exc:
        log_event("model-trouble", code=exc.code, reason=exc.message)
        return
    if manifest in held:
        _write(folder, tuple(one for one in held if one != manifest), durable)


def _write(folder: Path, manifests: tuple[str, ...], durable: bool) -> None:
    write_whole(folder / _FILE, canonical_json({"manifests": list(manifests)}), durable)


def _unreadable(folder: Path, why: object) -> StateError:
    remedy = "delete it if what was rolled back here may come again"
    return StateError(f"{folder / _FILE} cannot be read: {why}", remedy=remedy)
