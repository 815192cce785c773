"""Whether this device takes a manifest: each check has its own code, and what is cheap and sure comes first.

The floors are what an old manifest fails on, although its signature is right. Each key has its own, so that whoever
holds a stolen key cannot lift the device out of reach of the next key. The time floor stands in for the clock of a
board that starts in 1970; only signed manifests move it, since a clock that once ran ahead must not end every model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from edge_agent.config import AgentConfig
from wire.errors import Declined, StateError, WireError
from wire.frame import Frame, Kind, decode_frame
from wire.messages.manifest import MANIFEST_BYTES, Manifest, key_id, read_manifest
from wire.messages.rollout import Offer, read_offer
from wire.pieces.assembly import write_whole
from wire.sign import check_signature, open_signed
from wire.spec import canonical_json

__all__ = ["Floor", "Floors", "accept_manifest", "accept_offer", "load_floors", "save_floors", "stored_manifest"]

_FILE = "floors.json"


@dataclass(frozen=True, slots=True)
class Floor:
    """Of one key: the highest version that was accepted, its manifest's digest, and a time that has certainly passed.

    `time_version` is the version that says so; 0 is unknown.
    """

    version: int = 0
    digest: str = ""
    time_s: int = 0
    time_version: int = 0

    def raised(self, manifest: Manifest, digest: str) -> Floor:
        """Returns the floor after a manifest was accepted."""
        if manifest.created_s > self.time_s:
            return Floor(manifest.version, digest, manifest.created_s, manifest.version)
        return Floor(manifest.version, digest, self.time_s, self.time_version)


@dataclass(frozen=True, slots=True)
class Floors:
    """The floor of each key."""

    keys: Mapping[str, Floor] = field(default_factory=dict)


def accept_offer(data: bytes, config: AgentConfig) -> Offer:
    """Returns the coordinator's offer to this device; WireError if it is another's word, or to another device."""
    offer = read_offer(open_signed(data, Kind.OFFER, config.coordinator_key))
    if offer.device != config.device:
        raise WireError(f"an offer to device {offer.device!r}, this is {config.device!r}", code="E-SIGNATURE")
    return offer


def accept_manifest(data: bytes, config: AgentConfig, floors: Floors, clock_s: float) -> tuple[Manifest, Floors]:
    """Returns the manifest and the floors after it; raises WireError or Declined with the code of the first fault."""
    if len(data) > MANIFEST_BYTES:
        raise WireError(f"a manifest of {len(data)} bytes, at most {MANIFEST_BYTES} are read", code="E-MODEL-SIZE")
    frame = decode_frame(data, Kind.MANIFEST, MANIFEST_BYTES)
    manifest = read_manifest(frame)
    _check_key(frame, manifest, config)
    if manifest.fleet != config.fleet:
        raise Declined(f"a model of fleet {manifest.fleet!r}, this is {config.fleet!r}", code="E-FLEET")
    floor = floors.keys.get(manifest.key, Floor())
    _check_times(manifest, floor, clock_s)
    if manifest.golden_bytes > config.model.max_size_mb * 1e6:
        raise Declined(
            f"golden answers of {manifest.golden_bytes} bytes", code="E-MODEL-SIZE", remedy="raise max_size_mb"
        )
    digest = hashlib.sha256(data).hexdigest()
    if manifest.version < floor.version or (manifest.version == floor.version and digest != floor.digest):
        raise Declined(
            f"version {manifest.version}, this device has accepted {floor.version}",
            code="E-VERSION-FLOOR",
            remedy="to go back, publish the older content as a new version",
        )
    return manifest, Floors({**floors.keys, manifest.key: floor.raised(manifest, digest)})


def load_floors(folder: Path) -> Floors:
    """Returns the floors; a file that cannot be read is an error, since without it old models would pass."""
    try:
        table = json.loads((folder / _FILE).read_text())
        if "versions" in table:
            return _older_floors(table)
        return Floors({str(key): _floor(**entry) for key, entry in table["keys"].items()})
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
    table = {"keys": {key: asdict(floor) for key, floor in floors.keys.items()}}
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


def _floor(version: int, digest: str, time_s: int, time_version: int) -> Floor:
    return Floor(int(version), str(digest), int(time_s), int(time_version))


def _older_floors(table: Mapping[str, Any]) -> Floors:
    """Returns the floors of a file from when all keys had one time: now each has it, since no floor may fall."""
    time_s = int(table["time_s"])
    return Floors({str(key): _floor(entry[0], entry[1], time_s, 0) for key, entry in table["versions"].items()})


def _check_times(manifest: Manifest, floor: Floor, clock_s: float) -> None:
    """Raises what is wrong with a manifest's times; of a clock and a floor the later counts."""
    name = f"version {manifest.version}"
    if manifest.created_s >= manifest.expires_s:
        raise WireError(
            f"{name} was made {_day(manifest.created_s)} and expired {_day(manifest.expires_s)}, before that"
        )
    if clock_s >= manifest.expires_s:
        raise Declined(
            f"{name} expired {_day(manifest.expires_s)}, and this device's clock says {_day(clock_s)}",
            code="E-MODEL-EXPIRED",
            remedy="publish it again; if it is new, look at the device's clock",
        )
    if floor.time_s >= manifest.expires_s:
        whose = f"version {floor.time_version}" if floor.time_version else "an earlier one"
        raise Declined(
            f"{name} expired {_day(manifest.expires_s)}, before the time floor {_day(floor.time_s)}: {whose} of key"
            f" {manifest.key} was made then",
            code="E-MODEL-EXPIRED",
            remedy="publish it again with a later time; if that clock ran ahead, it is the publisher's",
        )


def _day(time_s: float) -> str:
    """Returns a time for a person to read."""
    return (datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=int(time_s))).strftime("%Y-%m-%d %H:%M UTC")


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
