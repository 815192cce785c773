"""The report of an export: one table to decide from, as JSON, Markdown and a picture."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.gate import TOLERANCE
from export.ladder.folder import disk
from wire.errors import ConfigError
from wire.pieces.assembly import write_whole

__all__ = ["Report", "draw", "markdown", "write_report"]

Report = Mapping[str, Any]
_HEAD = ("variant", "bits", "bytes", "of float", "accuracy", "lost", "latency", "of float", "load", "memory", "ranges")
_PANELS = (("accuracy", "accuracy"), ("latency_ms", "latency, ms"))
_NAME = "report"
_OLDEST = "1.16"


def write_report(report: Report, folder: Path, picture: bool = True) -> list[Path]:
    """Leaves report.json, report.md and, where matplotlib is installed, report.png; returns what was written."""
    text = json.dumps(report, indent=1, sort_keys=True, allow_nan=False) + "\n"
    parts = {"md": markdown(report).encode(), "png": _picture([report]) if picture else None, "json": text.encode()}
    with disk(folder):
        for kind, data in parts.items():  # the JSON last: only with it the folder is an export
            if data is not None:
                write_whole(folder / f"{_NAME}.{kind}", data)
    return [folder / f"{_NAME}.{kind}" for kind, data in parts.items() if data is not None]


def markdown(report: Report) -> str:
    """Returns the report as a page: the table, what was refused and why, and which layer lost the accuracy."""
    whole = report["float"]
    rows = [_row(one, whole) for one in report["variants"]]
    lines = [
        f"# {report['model']}: {len(rows)} files",
        "",
        f"Weights `{report['content'][:16]}` of run `{report['run'] or 'none'}`, {report['parameters']:,} parameters."
        f" Float ONNX: {whole['bytes']:,} bytes, accuracy {_percent(whole['accuracy'])}, {_ms(whole['latency_ms'])}.",
        f"{_basis(report)} Times on {report['machine']}: one thread, batch 1, medians, each variant beside the float"
        " file.",
        "",
        *_table(_HEAD, rows),
        *_exactness(report),
    ]
    for runtime in sorted({one["min_runtime"] for one in report["variants"]} - {_OLDEST}):
        newer = ", ".join(f"`{one['name']}`" for one in report["variants"] if one["min_runtime"] == runtime)
        lines += ["", f"Only for ONNX Runtime {runtime} and newer: {newer}."]
    if report["left_float"]:
        named = ", ".join(f"`{name}` ({count:,} values)" for name, count in report["left_float"].items())
        lines += ["", f"No form reaches these, which stay float32 and count as 32 bits: {named}."]
    if report["refused"]:
        lines += ["", "Not written, and why:", ""]
        lines += [f"- `{one['name']}`: {one['reason']}" for one in report["refused"]]
    for profile in dict.fromkeys(one["profile"] for one in report["sensitivity"]):
        table = [one for one in report["sensitivity"] if one["profile"] == profile]
        lines += ["", f"## Which layer loses the accuracy: {profile}", "", *_sensitivity(table)]
    return "\n".join(lines) + "\n"


def draw(reports: Sequence[Report], path: Path) -> None:
    """Leaves a picture: accuracy against size and latency against size, one line a profile and report."""
    data = _picture(reports)
    if data is None:
        raise ConfigError("a picture needs matplotlib", remedy="pip install 'bitfleet[plots]'")
    with disk(path):
        write_whole(path, data)


def _picture(reports: Sequence[Report]) -> bytes | None:
    """Returns the picture as PNG; None where there is nothing to draw with: the table says the same."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError:
        return None
    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    for at, (name, text) in enumerate(_PANELS):
        axes = figure.add_subplot(1, len(_PANELS), at + 1)
        for report in reports:
            for profile in sorted({one["profile"] for one in report["variants"]}):
                points = _points(report, profile, name)
                label = profile if len(reports) == 1 else f"{report['model']}, {profile}"
                axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label) if points else None
            if report["float"][name] is not None:
                axes.axhline(report["float"][name], linewidth=0.8, linestyle=":", color="grey")
        axes.set_xlabel("file, kB")
        axes.set_ylabel(text)
        axes.grid(alpha=0.3)
    if any(report["variants"] for report in reports):
        figure.axes[-1].legend(fontsize="small")  # latency is always known
    figure.suptitle(" and ".join(str(report["model"]) for report in reports))
    file = io.BytesIO()
    figure.savefig(file, dpi=110, format="png", metadata={"Software": "bitfleet export"})
    return file.getvalue()


def _basis(report: Report) -> str:
    """Returns what accuracies and choices rest on, in words."""
    stated, chose = report["examples"], report["calibration"]
    chosen = f"ranges and grids were chosen on {chose} {'others' if stated else 'examples'}"
    return f"Accuracy {f'on {stated} examples' if stated else 'is unknown'}; {chosen if chose else 'no examples'}."


def _exactness(report: Report) -> list[str]:
    """Returns how far the float files are off PyTorch, and what was allowed: for large outputs that is not 1e-4."""
    floats = [one for one in report["variants"] if one["profile"] == "float"]
    if not floats:
        return []
    off, allowed, ties = (max(one[name] for one in floats) for name in ("max_difference", "allowed", "ties"))
    largest = ", 1e-5 of the largest output" if allowed > TOLERANCE else ""
    line = f"Outputs of the float files are at most {off:.2g} off PyTorch's on {report['checked']} inputs; allowed was"
    line += f" {allowed:.2g}{largest}."
    if report["outputs"] > 1:
        but = f" but {ties} in one file, whose two best outputs are as good as equal" if ties else ""
        line += f" The class on top is the same on all{but}."
    return ["", line]


def _points(report: Report, profile: str, name: str) -> list[tuple[float, float]]:
    chosen = [one for one in report["variants"] if one["profile"] == profile and one[name] is not None]
    return sorted((one["bytes"] / 1e3, one[name]) for one in chosen)


def _row(one: Mapping[str, Any], whole: Mapping[str, Any]) -> tuple[str, ...]:
    lost = None if None in (one["accuracy"], whole["accuracy"]) else whole["accuracy"] - one["accuracy"]
    return (
        f"`{one['name']}`",
        f"{one['bits']:.2f}".rstrip("0").rstrip("."),
        f"{one['bytes']:,}",
        f"{one['bytes'] / whole['bytes']:.3f}",
        _percent(one["accuracy"]),
        "unknown" if lost is None else f"{100 * lost:.2f}",
        _ms(one["latency_ms"]),
        "unknown" if one["latency_ratio"] is None else f"{one['latency_ratio']:.2f}",
        _ms(one["load_ms"]),
        "unknown" if one["memory_bytes"] is None else f"{one['memory_bytes'] / 1e6:.1f} MB",
        str(one["ranges"]),
    )


def _sensitivity(table: Sequence[Mapping[str, Any]]) -> list[str]:
    widths = sorted({one["bits"] for one in table}, reverse=True)
    layers = list(dict.fromkeys(one["layer"] for one in table))
    found = {(one["layer"], one["bits"]): one for one in table}
    cells = [
        (
            f"`{layer}`",
            *(f"{100 * found[layer, bits]['accuracy']:.2f} ({found[layer, bits]['loss']:+.4f})" for bits in widths),
        )
        for layer in layers
    ]
    note = "Points of accuracy lost, and loss gained, with one layer at that width and the others at the widest."
    return [note, "", *_table(("layer", *(f"{bits} bits" for bits in widths)), cells)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.2f} %"


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g} ms"
