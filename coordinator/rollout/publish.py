"""Makes signed manifests of exported models, and puts all that devices may fetch on the shelf under its digest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coordinator.library import Library
from coordinator.rollout.book import Published
from coordinator.rollout.exported import Export
from wire.errors import StateError, WireError
from wire.frame import Kind, decode_frame
from wire.messages.blob import digest_bytes
from wire.messages.manifest import MANIFEST_BYTES, Manifest, encode_manifest, key_id, read_manifest
from wire.sign import public_key, signer

__all__ = ["Edition", "blobs_of", "load_manifest", "of_export", "renewed", "shelve"]

_DAY_S = 86400


@dataclass(frozen=True, slots=True)
class Edition:
    """What one publication adds to the content: its version, its time, how long it holds, who signs it."""

    fleet: str
    version: int
    now_s: int
    days: int
    key: Path
    parent: int = 0


def of_export(export: Export, edition: Edition) -> Manifest:
    """Returns the manifest of an exported model."""
    return Manifest(
        **_stamp(edition),
        model=export.model,
        content=export.content,
        input=export.input,
        outputs=export.outputs,
        labels=export.labels,
        preprocessing=export.preprocessing,
        lineage=export.lineage,
        golden=export.golden,
        golden_bytes=export.golden_bytes,
        variants=export.variants,
    )


def renewed(older: Manifest, edition: Edition) -> Manifest:
    """Returns a new version that names the content of an older one: how a fleet goes back."""
    return replace(older, **_stamp(edition))


def shelve(shelf: Path, manifest: Manifest, key: Path, files: Mapping[str, Path], durable: bool = True) -> Published:
    """Puts the files and the signed manifest on the shelf, whole and each once; returns where the manifest is."""
    data = encode_manifest(manifest, signer(key))
    _read(data, "the manifest")  # what devices would refuse is not published
    shelf.mkdir(parents=True, exist_ok=True)
    library = Library(shelf, durable=durable)
    for digest, path in files.items():
        _keep(library, digest, path.read_bytes, str(path))
    for digest in blobs_of(manifest):
        _keep(library, digest, (shelf / digest).read_bytes, str(shelf / digest))
    digest = digest_bytes(data)
    library.put(digest, data)
    return Published(manifest.version, digest, len(data))


def load_manifest(shelf: Path, at: Published) -> Manifest:
    """Returns a manifest from the shelf, its bytes checked."""
    path = shelf / at.digest
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise StateError(f"version {at.version} cannot be read: {exc}", remedy="publish the export again") from exc
    if digest_bytes(data) != at.digest:
        raise StateError(f"{path} holds other bytes than its name says", remedy="publish the export again")
    return _read(data, str(path))


def blobs_of(manifest: Manifest) -> set[str]:
    """Returns the digests of everything that a manifest names."""
    bundles = {variant.bundle for variant in manifest.variants if variant.bundle}
    return {manifest.golden, *(variant.digest for variant in manifest.variants)} | bundles


def _read(data: bytes, place: str) -> Manifest:
    try:
        return read_manifest(decode_frame(data, Kind.MANIFEST, MANIFEST_BYTES))
    except WireError as exc:
        raise StateError(f"{place}: {exc.message}", remedy="export the model again with `bitfleet export`") from exc


def _keep(library: Library, digest: str, read: Callable[[], bytes], place: str) -> None:
    """Puts a file on the shelf if its bytes are what the digest says; one that is there and damaged is put anew."""
    try:
        data = read()
    except OSError as exc:
        raise StateError(f"{place} cannot be read: {exc}", remedy="publish the export again") from exc
    if digest_bytes(data) != digest:
        raise StateError(f"{place} holds other bytes than {digest[:12]}...", remedy="publish the export again")
    kept = library.folder / digest
    if kept.is_file() and digest_bytes(kept.read_bytes()) != digest:
        kept.unlink()
    library.put(digest, data)


def _stamp(edition: Edition) -> dict[str, Any]:
    return {
        "fleet": edition.fleet,
        "version": edition.version,
        "created_s": edition.now_s,
        "expires_s": edition.now_s + _DAY_S * edition.days,
        "key": key_id(public_key(edition.key)),
        "parent": edition.parent,
    }
