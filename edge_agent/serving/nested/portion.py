"""Whether a variant is fetched as its file, or as a portion of a bundle that its file is cut from.

Counted is what is not here yet. A bundle's portion is always some kilobytes larger than the file, since its header
describes every width; it pays when the device takes another width of the same bundle later, or has taken one.

    another variant names the bundle    the portion, unless it takes more than a quarter more than the file
    none does                           the portion, if it takes less than the file

The outcome stays the same while either of the two is under way, also over restarts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wire.messages.manifest import Manifest, Variant
from wire.pieces.assembly import Assembly

__all__ = ["Portion", "bundles_of", "portion_of"]


@dataclass(frozen=True, slots=True)
class Portion:
    """The first `size` bytes of the bundle `digest`, of which `lacking` are not here yet."""

    digest: str
    size: int
    lacking: int


def portion_of(variant: Variant, manifest: Manifest, store: Path) -> Portion | None:
    """Returns what of a bundle to fetch for a variant, or None if its file is to be fetched, or is here."""
    if not variant.bundle or (store / variant.digest).exists():
        return None
    portion = Assembly.open(store, variant.bundle, variant.prefix, portion=True)
    file = _lacking(Assembly.open(store, variant.digest, variant.size))
    found = Portion(variant.bundle, variant.prefix, _lacking(portion))
    shared = any(one.bundle == variant.bundle and one.name != variant.name for one in manifest.variants)
    pays = 4 * found.lacking <= 5 * file if shared else found.lacking < file
    return found if pays else None


def bundles_of(manifest: Manifest) -> set[str]:
    """Returns the digests of the bundles that a manifest names."""
    return {variant.bundle for variant in manifest.variants if variant.bundle}


def _lacking(part: Assembly) -> int:
    return part.total - sum(end - start for start, end in part.spans.held)
