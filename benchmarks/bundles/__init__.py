"""What bundles cost: each width's prefix beside the file of that width, for nets of 1,000,000 to 20,000 weights.

The nets are as they start: training changes no bytes. What a board fetches that has the prefix of 4 bits and wants 8
is stated beside the whole file of 8.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.result import Figure, Requirement, Result, at_most

__all__ = ["run"]

_SIZED = {"large": "cnn-64-128-256-256", "middle": "cnn-32-64-128", "small": "cnn-16-32"}
_INPUT = (1, 28, 28)
_WIDTHS = (8, 6, 5, 4, 3, 2)
_TAKEN = 1.25  # over the file: the most at which a board takes a prefix
_REST = 0.5  # of the file of 8 bits


def run(options: Sequence[str]) -> Result:
    """Writes files and bundles of every net and profile."""
    argparse.ArgumentParser(prog="scripts/bench bundles").parse_args(options)
    figures: dict[str, Figure] = {}
    limits: list[Requirement] = []
    for size, arch in _SIZED.items():
        parameters, sizes = _sizes(arch)
        figures |= {size: arch, f"{size} parameters": parameters}
        for profile, (files, need) in sizes.items():
            over = {bits: need[bits] / files[bits] for bits in _WIDTHS}
            rest = (need[8] - need[4]) / files[8]
            figures |= {f"{size} {profile}-{bits} prefix over file": value for bits, value in over.items()}
            figures[f"{size} {profile} rest from 4 to 8 bits over file"] = rest
            limits.append(at_most(f"{size} {profile} rest from 4 to 8 bits over file", _REST, rest))
            if size == "large":
                limits.append(at_most(f"{size} {profile} prefix over file", _TAKEN, max(over.values())))
    return Result(figures, tuple(limits))


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
