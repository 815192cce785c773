"""Widths layer by layer against even widths of no larger files, on a net that 3 bits cost something, with ten seeds.

Where even 3 bits lose nothing, as with the nets of the rest of this benchmark, mixing can win nothing but noise: that
they lose a point is a requirement here. The net is trained by one device on 12,000 examples. Widths are chosen on the
first 2000 test examples, accuracies stated on the 8000 others. A mixed file is held against the best, on those, of all
even files that are no larger: not only the one whose size is the budget. Means over the seeds are what is required, and
their standard errors stand beside: one seed's difference of a few tenths of a point is that of a dozen examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.ladder.trained import kept, trained
from benchmarks.result import Figure, Requirement, at_least

__all__ = ["layer_by_layer", "verdicts"]

_NET = "cnn-8-16-32-64"
_SETTINGS = (
    "task=fashion", f"model={_NET}", "rounds=8", "devices.goal=1", "split.examples=12000", "train.epochs=1",
    "train.batch=32", "train.rate=0.05", "train.momentum=0.9", "start=uniform", "evaluate.every=8", "evaluate.bits=[]",
)  # fmt: skip
_SEEDS = tuple(range(1, 11))
_PROFILES, _WIDTHS = ("int8", "float"), (4, 3)
_LEAST_LOST = 1.0  # points
_OF_NOTE = 0.01


def layer_by_layer(work: Path) -> tuple[dict[str, Figure], list[Requirement]]:
    """Returns figures of all seeds, and what mixing must win."""
    seeds = {}
    for seed in _SEEDS:
        folder = work / f"layers.{seed}"
        source = trained("fedavg", _SETTINGS, folder, seed)
        seeds[seed] = kept(folder / "figures.json", partial(_measured, source, folder))
    figures: dict[str, Figure] = {"layers net": _NET}
    figures |= {f"layers {seed} {name}": value for seed, found in seeds.items() for name, value in found.items()}
    spread, limits = verdicts(seeds)
    return figures | spread, limits


def verdicts(seeds: Mapping[int, Mapping[str, Any]]) -> tuple[dict[str, Figure], list[Requirement]]:
    """Returns mean, least and most of the points that even widths lose and that mixing wins, and the limits."""
    figures: dict[str, Figure] = {}
    limits = []
    for profile in _PROFILES:
        for bits in _WIDTHS:
            name = f"{profile}-{bits}"
            lost = [100 * (one["float accuracy"] - one[f"{name} accuracy"]) for one in seeds.values()]
            won = [100 * (one[f"mixed {name} accuracy"] - one[f"best even {name} accuracy"]) for one in seeds.values()]
            for text, points in ((f"layers {name} lost", lost), (f"layers mixed over {name}", won)):
                figures |= {f"{text}, mean": mean(points), f"{text}, least": min(points), f"{text}, most": max(points)}
                figures[f"{text}, standard error"] = stdev(points) / len(points) ** 0.5
            least = 0.0
            if bits == min(_WIDTHS):
                least = _OF_NOTE
                limits.append(at_least(f"even {name} loses, points, mean", _LEAST_LOST, mean(lost)))
            limits.append(at_least(f"mixed over even at the size of {name}, points, mean", least, mean(won)))
    return figures, limits


def _measured(source: Any, folder: Path) -> dict[str, Figure]:
    """Returns bytes and accuracies of one seed's files: even ones, and mixed ones at the sizes of 4 and 3 bits."""
    from export.ladder.make import Wish, make_ladder
    from export.ladder.mixed import Budget

    report = make_ladder(source, Wish(rounds=1), folder / "even")
    even = {one["name"]: one for one in report["variants"]}
    figures: dict[str, Figure] = {"float accuracy": report["float"]["accuracy"]}
    for name, one in even.items():
        figures |= {f"{name} accuracy": one["accuracy"], f"{name} bytes": one["bytes"]}
    for name in (f"{profile}-{bits}" for profile in _PROFILES for bits in _WIDTHS):
        profile, most = even[name]["profile"], even[name]["bytes"]
        wish = Wish((), (profile,), budget=Budget(most_bytes=most), rounds=1)
        (found,) = make_ladder(source, wish, folder / f"mixed-{name}")["variants"]
        fits = [one for one in even.values() if one["profile"] == profile and one["bytes"] <= most]
        best = max(fits, key=lambda one: float(one["accuracy"]))
        figures |= {f"mixed {name} accuracy": found["accuracy"], f"mixed {name} bytes": found["bytes"]}
        figures[f"mixed {name} widths"] = " ".join(map(str, found["widths"].values()))
        figures |= {f"best even {name} accuracy": best["accuracy"], f"best even {name}": best["name"]}
    return figures
