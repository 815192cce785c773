"""Pictures of runs: accuracy against rounds, against the bytes sent up, and against bit-widths that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from wire.errors import ConfigError
from wire.settings import check_writable

__all__ = ["Curve", "check_plots", "curve_of", "draw"]

Curve = dict[str, Any]
_INCHES = 4.5
_BITS = "accuracy_by_bits"


def curve_of(label: str, ledger: Sequence[Mapping[str, Any]]) -> Curve:
    """Returns what is drawn of one run: round, bytes up until then and accuracy, for each round that was measured."""
    up: dict[int, int] = {}
    for line in ledger:
        if line["event"] == "traffic":
            up[line["round"]] = up.get(line["round"], 0) + sum(line["up"].values())
    sums = dict(zip(sorted(up), accumulate(up[number] for number in sorted(up)), strict=True))
    measured = [line for line in ledger if line["event"] == "evaluated" and isinstance(line.get("accuracy"), float)]
    by_bits: Mapping[str, float] = next((line[_BITS] for line in reversed(measured) if _BITS in line), {})
    return {
        "label": label,
        "rounds": [line["round"] + 1 for line in measured],
        "bytes_up": [sums.get(line["round"], 0) for line in measured],
        "accuracy": [line["accuracy"] for line in measured],
        "bits": {int(bits): accuracy for bits, accuracy in by_bits.items()},
    }


def check_plots(path: Path | None) -> None:
    """Raises ConfigError if a picture is wanted and cannot be drawn: better before the run than after it."""
    if path is None:
        return
    try:
        import matplotlib  # noqa: F401, PLC0415
    except ImportError as exc:
        raise ConfigError("--plot needs matplotlib", remedy="pip install 'bitfleet[plots]'") from exc
    check_writable(path, "--plot")
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"--plot {path}", remedy="end the name in .png, .svg or .pdf")


def draw(curves: Sequence[Curve], path: Path, title: str = "") -> None:
    """Leaves a picture of the runs side by side."""
    check_plots(path)
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import EngFormatter, MaxNLocator  # noqa: PLC0415

    panels = [("rounds", "rounds"), ("bytes_up", "bytes up, all devices")]
    panels += [("bits", "bits a weight")] if any(curve["bits"] for curve in curves) else []
    figure = Figure(figsize=(_INCHES * len(panels), 4.0), layout="constrained")
    for at, (name, text) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), at + 1)
        for curve in curves:
            x, y = _points(curve, name)
            axes.plot(x, y, marker="o" if len(x) < 30 else None, markersize=3, label=curve["label"])
        axes.set_xlabel(text)
        axes.set_ylabel("accuracy on the test set" if at == 0 else "")
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if name == "bytes_up":
            axes.xaxis.set_major_formatter(EngFormatter(unit="B"))
    if len(curves) > 1:
        figure.axes[0].legend(fontsize="small")
    figure.suptitle(title or curves[0]["label"])
    figure.savefig(path, dpi=120)


def _points(curve: Curve, name: str) -> tuple[list[float], list[float]]:
    if name == "bits":
        return sorted(curve["bits"]), [curve["bits"][bits] for bits in sorted(curve["bits"])]
    return curve[name], curve["accuracy"]
