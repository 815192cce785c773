"""Whether this device takes a manifest: each check has its own code, and what is cheap and sure comes first.

The floors are what an old manifest fails on, although its signature is right. There is one for each key, so that
whoever holds a stolen key cannot lift the device out of reach of the next key. The time floor stands in for the clock
of a board that starts in 1970; only signed manifests move it, since a clock that once ran ahead must not end every
model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edge_agent.config import AgentConfig
from wire.errors import Declined, StateError, WireError
from wire.frame import Frame, Kind, decode_frame
from wire.messages.manifest import MANIFEST_BYTES, Manifest, key_id, read_manifest
from wire.pieces.assembly import write_whole
from wire.sign import check_signature
from wire.spec import canonical_json

__all__ = ["Floors", "accept_manifest", "load_floors", "save_floors", "stored_manifest"]

_FILE = "floors.json"


@dataclass(frozen=True, slots=True)
class Floors:
    """By key: the highest version that was accepted and its manifest's digest. `time_s` has certainly passed."""

    versions: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    time_s: int = 0

    def raised(self, manifest: Manifest, digest: str) -> Floors:
        """Returns the floors after a manifest was accepted."""
        versions = {**self.versions, manifest.key: (manifest.version, digest)}
        return replace(self, versions=versions, time_s=max(self.time_s, manifest.created_s))


def accept_manifest(data: bytes, config: AgentConfig, floors: Floors, clock_s: float) -> tuple[Manifest, Floors]:
    """Returns the manifest and the floors after it; raises WireError or Declined with the code of the first fault."""
    if len(data) > MANIFEST_BYTES:
        raise WireError(f"a manifest of {len(data)} bytes, at most {MANIFEST_BYTES} are read", code="E-MODEL-SIZE")
    frame = decode_frame(data, Kind.MANIFEST, MANIFEST_BYTES)
    manifest = read_manifest(frame)
    _check_key(frame, manifest, config)
    if manifest.fleet != config.fleet:
        raise Declined(f"a model of fleet {manifest.fleet!r}, this is {config.fleet!r}", code="E-FLEET")
    now_s = max(clock_s, floors.time_s)
    if now_s >= manifest.expires_s:
        raise Declined(
            f"version {manifest.version} expired {(now_s - manifest.expires_s) / 3600:.0f} hours ago",
            code="E-MODEL-EXPIRED",
            remedy="publish it again; if it is new, look at the device's clock",
        )
    if manifest.golden_bytes > config.model.max_size_mb * 1e6:
        raise Declined(
            f"golden answers of {manifest.golden_bytes} bytes", code="E-MODEL-SIZE", remedy="raise max_size_mb"
        )
    digest = hashlib.sha256(data).hexdigest()
    version, held = floors.versions.get(manifest.key, (0, ""))
    if manifest.version < version or (manifest.version == version and digest != held):
        raise Declined(
            f"version {manifest.version}, this device has accepted {version}",
            code="E-VERSION-FLOOR",
            remedy="to go back, publish the older content as a new version",
        )
    return manifest, floors.raised(manifest, digest)


def load_floors(folder: Path) -> Floors:
    """Returns the floors; a file that cannot be read is an error, since without it old models would pass."""
    try:
        table = json.loads((folder / _FILE).read_text())
        versions = {str(key): (int(entry[0]), str(entry[1])) for key, entry in table["versions"].items()}
        return Floors(versions, int(table["time_s"]))
    except FileNotFoundError:
        return Floors()
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as exc:
        raise Declined(
            f"{folder / _FILE} cannot be read: {exc}",
            code="E-STATE",
            remedy="delete it if you trust what is offered now: versions are then counted anew",
        ) from exc


def save_floors(folder: Path, floors: Floors, durable: bool = True) -> None:
    """Writes the floors."""
    table: dict[str, Any] = {
        "versions": {key: list(entry) for key, entry in floors.versions.items()},
        "time_s": floors.time_s,
    }
    write_whole(folder / _FILE, canonical_json(table), durable)


def stored_manifest(store: Path, digest: str) -> Manifest:
    """Returns a manifest that was accepted earlier; StateError if its file is not there or holds other bytes."""
    try:
        data = (store / digest).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise StateError(f"{store / digest} does not hold what its name says")
        return read_manifest(decode_frame(data, Kind.MANIFEST))
    except OSError as exc:
        raise StateError(f"manifest {digest[:12]} is not here: {exc.strerror}") from exc


def _check_key(frame: Frame, manifest: Manifest, config: AgentConfig) -> None:
    known = {key_id(key): key for key in config.model_keys}
    if manifest.key not in known:
        remedy = "set model_keys in the agent's configuration; `bitfleet keys` prints the key"
        raise Declined(
            f"it names the key {manifest.key!r}; known here: {', '.join(known) or 'none'}",
            code="E-MODEL-KEY",
            remedy=remedy if not known else "ask who signed it; a new key goes into model_keys",
        )
    try:
        check_signature(frame, known[manifest.key])
    except WireError as exc:
        raise WireError(f"the manifest is not signed by key {manifest.key}", code="E-SIGNATURE") from exc
