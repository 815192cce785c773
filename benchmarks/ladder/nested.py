"""Nested codes of a trained net: how far they lie below separate rounding. Their bytes are `scripts/bench bundles`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.result import Figure, Requirement, at_most

__all__ = ["nested"]

_NESTED_DB = 1.5


def nested(source: Any, work: Path, figures: dict[str, Figure]) -> list[Requirement]:
    """Returns how much worse nested codes are than codes rounded for each width alone, in decibels."""
    from export.graph import float_graph, weights_of
    from export.grids import RANGES, place
    from export.ladder.make import Wish, make_ladder
    from export.ladder.nested import nested_forms

    report = make_ladder(source, Wish(nested=True, rounds=1), work / "nested")
    limits, weights = [], weights_of(float_graph(source.spec, source.params, source.still))
    for one in report["variants"]:
        bits, profile = round(one["bits"]), one["profile"]
        figures |= {f"nested {one['name']} accuracy": one["accuracy"], f"nested {one['name']} prefix": one["prefix"]}
        figures[f"nested {profile} bundle bytes"] = one["bundle_bytes"]
        alone = max(_db(weights, {n: place(w, bits, r, profile) for n, w in weights.items()}) for r in RANGES)
        below = alone - _db(weights, nested_forms(weights, bits, profile))
        figures[f"nested {one['name']} dB below"] = below
        if bits >= 4:
            limits.append(at_most(f"nested {one['name']} below separate rounding, dB", _NESTED_DB, below))
    limits.append(at_most("nested files refused", 0, len(report["refused"])))
    return limits


def _db(weights: Mapping[str, Any], forms: Mapping[str, Any]) -> float:
    """Returns how far rounding lies below the weights, over all of them."""
    import numpy as np

    lost = sum(float(np.square(forms[name].values().astype(float) - each).sum()) for name, each in weights.items())
    return float(10 * np.log10(sum(float(np.square(each, dtype=float).sum()) for each in weights.values()) / lost))
