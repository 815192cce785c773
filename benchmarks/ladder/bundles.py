"""Nested bundles: how far their codes lie below separate rounding, and what their prefixes cost beside whole files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.result import Figure, Requirement, at_most

__all__ = ["bytes_of_bundles", "nested"]

_NESTED_DB = 1.5
_WIDTHS = (8, 6, 5, 4, 3, 2)
_SIZED = {"large": "cnn-64-128-256-256", "middle": "cnn-32-64-128", "small": "cnn-16-32"}
_INPUT = (1, 28, 28)


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


def bytes_of_bundles(figures: dict[str, Figure]) -> None:
    """Adds what prefixes cost over the file of their width, and the rest from 4 to 8 bits over the file of 8: for nets
    as they start, as training does not change bytes.
    """
    for size, arch in _SIZED.items():
        parameters, sizes = _sizes(arch)
        figures |= {f"bundle {size}": arch, f"bundle {size} parameters": parameters}
        for profile, (files, need) in sizes.items():
            for bits in _WIDTHS:
                figures[f"bundle {size} {profile}-{bits} prefix over file"] = need[bits] / files[bits]
            figures[f"bundle {size} {profile} rest from 4 to 8 bits over file"] = (need[8] - need[4]) / files[8]


def _sizes(arch: str) -> tuple[int, dict[str, tuple[dict[int, int], dict[int, int]]]]:
    """Returns a net's parameters, and by profile the bytes of each width's file and of its prefix."""
    import numpy as np

    from export.graph import float_graph, weights_of
    from export.ladder.drafts import Bench, Wish, drafts, written
    from export.ladder.nested import bundled
    from export.ladder.source import Source
    from models.archs import spec_of
    from models.data import load
    from models.init import initial

    spec = spec_of(arch, _INPUT, 10, 1)
    source = Source(spec, initial(spec), arch, load("fashion", "test").take(np.arange(16)), calibration=16)
    model = float_graph(spec, source.params, None)
    found = {}
    for profile in ("int8", "float"):
        bench = Bench(source, model, weights_of(model), Wish(_WIDTHS, nested=True), profile, "minmax")
        files = {bits: written(bench, draft())[0] for bits, draft in zip(_WIDTHS, drafts(bench).values(), strict=True)}
        _, need = bundled(bench.weights, files, profile)
        found[profile] = ({bits: len(file) for bits, file in files.items()}, need)
    return spec.count, found


def _db(weights: Mapping[str, Any], forms: Mapping[str, Any]) -> float:
    """Returns how far rounding lies below the weights, over all of them."""
    import numpy as np

    lost = sum(float(np.square(forms[name].values().astype(float) - each).sum()) for name, each in weights.items())
    return float(10 * np.log10(sum(float(np.square(each, dtype=float).sum()) for each in weights.values()) / lost))
