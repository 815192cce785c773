"""The manifests that were rolled back on this device: none of them is put into a slot again, unless a person pins it.

Where another variant of the same manifest serves in its place, only the variant was: it stands as MANIFEST/VARIANT.

How the last offer ended does not do for that: another offer, other settings and another runtime make it void. Only the
newest of them are kept; what is older than those is under the version floor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edge_agent.serving.policy import Finding
from wire.errors import StateError
from wire.events import log_event
from wire.messages.manifest import Variant
from wire.pieces.assembly import write_whole
from wire.spec import canonical_json

__all__ = ["bar", "bar_model", "barred", "is_barred", "is_out", "lift", "out_of", "parted"]

_FILE = "rolled-back.json"
_MOST = 32


def barred(folder: Path) -> tuple[str, ...]:
    """Returns what was rolled back, oldest first; a file that cannot be read is an error: what it holds is unknown."""
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


def is_out(folder: Path, facts: Mapping[str, Any]) -> bool:
    """Tells of the model in a slot whether it was rolled back: its manifest or its variant of that."""
    return is_barred(folder, str(facts["manifest"])) or is_barred(folder, _variant(facts["manifest"], facts["variant"]))


def parted(folder: Path, manifest: str) -> bool:
    """Tells whether variants of a manifest were rolled back, and not all of it."""
    try:
        return manifest not in (held := barred(folder)) and any(one.startswith(f"{manifest}/") for one in held)
    except StateError as exc:
        log_event("model-trouble", code=exc.code, reason=exc.message)
        return False


def out_of(folder: Path, manifest: str, variants: Iterable[Variant]) -> dict[str, Finding]:
    """Returns for each variant of a manifest that was rolled back alone the finding that says so."""
    said = Finding(code="E-MODEL-HEALTH", reason="it was rolled back here before")
    return {one.name: said for one in variants if is_barred(folder, _variant(manifest, one.name))}


def bar_model(folder: Path, left: Mapping[str, Any], back: Mapping[str, Any] | None, durable: bool = True) -> None:
    """Bars what a slot holds, that gives way to another: if that one is of the same manifest, the variant alone."""
    same = back is not None and back["manifest"] == left["manifest"]
    bar(folder, _variant(left["manifest"], left["variant"]) if same else str(left["manifest"]), durable)


def bar(folder: Path, manifest: str, durable: bool = True) -> None:
    """Adds a manifest; a file that cannot be read is begun anew, since it must not keep a bad model in service."""
    try:
        held = barred(folder)
    except StateError as exc:
        log_event("model-trouble", code=exc.code, reason=exc.message)
        held = ()
    if manifest not in held[-1:]:
        _write(folder, (*(one for one in held if one != manifest), manifest)[-_MOST:], durable)


def lift(folder: Path, facts: Mapping[str, Any], durable: bool = True) -> None:
    """Takes a slot's model off, since a person wants it; of a file that cannot be read the next bar makes another."""
    gone = {str(facts["manifest"]), _variant(facts["manifest"], facts["variant"])}
    try:
        held = barred(folder)
    except StateError as exc:
        log_event("model-trouble", code=exc.code, reason=exc.message)
        return
    if gone & set(held):
        _write(folder, tuple(one for one in held if one not in gone), durable)


def _variant(manifest: object, name: object) -> str:
    return f"{manifest}/{name}"


def _write(folder: Path, manifests: tuple[str, ...], durable: bool) -> None:
    write_whole(folder / _FILE, canonical_json({"manifests": list(manifests)}), durable)


def _unreadable(folder: Path, why: object) -> StateError:
    remedy = "delete it if what was rolled back here may come again"
    return StateError(f"{folder / _FILE} cannot be read: {why}", remedy=remedy)
