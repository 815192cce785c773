"""Draws the stored results for docs/methods.md: `python -m benchmarks.claims.pictures`.

robust.png     accuracy against bit-width of the narrow net, for FedAvg and the methods that prepare it for rounding
freezing.png   accuracy against the trainable share, for the freezings of two nets

A point is the mean of the seeds, a bar the standard deviation over them; nothing is drawn of what is not stored.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.claims.methods import METHODS
from benchmarks.claims.readings import plateau
from benchmarks.claims.session import seeds_of
from benchmarks.claims.store import Store

__all__ = ["Point", "Series", "freezings", "main", "robustness"]

DOCS = Path(__file__).parent.parent.parent / "docs"
_BITS = (2, 3, 4, 5, 6, 8)
_FULL = 9  # where full precision stands, right of 8 bits
_ROBUST = {"fedavg": "FedAvg", "kure": "KURE", "apqn3": "APQN-3", "qat3": "QAT-3", "mqat28": "MQAT 2-8"}
_NETS = {"fz-leaf-": "LEAF CNN", "fz-cnn-": "CNN 32-64"}

Point = tuple[float, float, float]
Series = dict[str, list[Point]]


def robustness(store: Store) -> Series:
    """Returns, by method: bits, mean accuracy, spread."""
    found: Series = {}
    for name, label in _ROBUST.items():
        runs = _figures(store, f"qr-{name}")
        widths = {**{bits: bits for bits in _BITS}, _FULL: 0}
        found[label] = [(float(at), *_over(runs, _reading(bits))) for at, bits in widths.items()] if runs else []
    return found


def freezings(store: Store) -> Series:
    """Returns, by net and its number of parameters: trainable share, mean accuracy, spread."""
    found: Series = {}
    for prefix, label in _NETS.items():
        stored = [_figures(store, name) for name in METHODS.trials if name.startswith(prefix) and "-tune-" not in name]
        runs = [each for each in stored if each]
        points = [(each[0]["params"] / each[0]["params_with_frozen"], *_over(each, plateau)) for each in runs]
        size = f", {runs[0][0]['params_with_frozen']:,} parameters" if runs else ""
        found[label + size] = sorted(points)
    return found


def main() -> int:
    """Draws what is stored."""
    store = Store()
    _draw(robustness(store), DOCS / "robust.png", "bits a weight, without further training", _as_bits)
    _draw(freezings(store), DOCS / "freezing.png", "share of the parameters that is trained and sent", _as_share)
    return 0


def _figures(store: Store, name: str) -> list[Mapping[str, Any]]:
    return [seed[name] for seed in seeds_of(store, [METHODS.trials[name]])]


def _reading(bits: int) -> Callable[[Mapping[str, Any]], float]:
    return lambda figures: plateau(figures, bits, readings=5)


def _over(runs: Sequence[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], float]) -> tuple[float, float]:
    values = [read(one) for one in runs]
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def _as_bits(axes: Any) -> None:
    axes.set_xticks([*_BITS, _FULL], [*map(str, _BITS), "float"])


def _as_share(axes: Any) -> None:
    axes.set_xscale("log")


def _draw(series: Series, path: Path, text: str, shape: Callable[[Any], None]) -> None:
    from matplotlib.figure import Figure

    drawn = {label: points for label, points in series.items() if points}
    if not drawn:
        print(f"{path.name}: nothing is stored that could be drawn")
        return
    figure = Figure(figsize=(6.5, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for label, points in drawn.items():
        x, y, spread = zip(*points, strict=True)
        axes.errorbar(x, y, spread, marker="o", markersize=4, capsize=3, label=label)
    shape(axes)
    axes.set_xlabel(text)
    axes.set_ylabel("accuracy on the test set, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=110)
    print(f"{path.name}: {', '.join(f'{label} ({len(points)})' for label, points in drawn.items())}")


if __name__ == "__main__":
    sys.exit(main())
