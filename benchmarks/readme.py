"""Writes the stored figures into README and docs/export.md: `python -m benchmarks.readme --write`; a test compares.

Each cell stands between `<!-- figures:NAME -->` and `<!-- -->`, and is made from benchmarks/results/NAME.json.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["DOCUMENTS", "filled", "main"]

README = Path(__file__).parent.parent / "README.md"
DOCUMENTS = (README, README.parent / "docs" / "export.md")
RESULTS = Path(__file__).parent / "results"
_CELL = re.compile(r"<!-- figures:([a-z.]+) -->.*?<!-- -->")

Figures = Mapping[str, Any]
_WIDTHS = (8, 6, 5, 4, 3, 2)

_CELLS: dict[str, Callable[[Figures], str]] = {
    "idle": lambda f: (
        f"{f['resident_mb']:.1f} MB, {f['wire_kb_min']:.3f} kB/min, {f['cpu_percent_of_a_core']:.3f} % of a core"
    ),
    "round": lambda f: (
        f"mosquitto {f['mosquitto_4_round_s']:.2f} and {f['mosquitto_10_round_s']:.2f} s,"
        f" iotcore {f['iotcore_4_round_s']:.2f} and {f['iotcore_10_round_s']:.2f} s"
    ),
    "wire": lambda f: ", ".join(f"{f[name + '_socket_over_4p']:.4f}" for name in ("float32", "8bit", "4bit", "1level")),
    "ingest": lambda f: (
        f"{f['peak_mb_200_devices']:.1f} over {f['peak_mb_10_devices']:.1f} MB: {f['difference_mb']:.1f} MB more"
    ),
    "codec": lambda f: f"{f['encode_over_bare']:.2f}, {f['decode_over_bare']:.2f}",
    "install": lambda f: f"{f['environment_mb']:.1f} MB, {f['distributions']} distributions",
    "simulate": lambda f: f"{f['trained_over_trainer']:.2f}, {f['trained_over_numpy']:.2f}",
    "combined": lambda f: (
        f"{f['required tg-leaf-up']:.0f} times, {f['required tg-leaf-both']:.0f} times,"
        f" {f['required tg-leaf-4bit']:.1f} points;"
        f" {re.findall('[0-9]+ seeds?', f['tg-leaf-up'])[0]}"
    ),
    "export": lambda f: (
        "int8 "
        + ", ".join(f"{f[f'int8-{bits}_over_float']:.3f}" for bits in _WIDTHS)
        + "; float "
        + ", ".join(f"{f[f'float-{bits}_over_float']:.3f}" for bits in _WIDTHS)
        + "; int8 takes {:.2f} to {:.2f} of float's time".format(*_ends(f))
    ),
    "ladder": lambda f: ", ".join(
        f"{100 * (f['mqat float accuracy'] - f[f'mqat int8-{bits} accuracy']):.2f}" for bits in _WIDTHS
    ),
    "runtimes": lambda f: (
        f"{f['files']} files, largest difference {f['int8_max_difference']:g} and {f['float_max_difference']:g}"
    ),
    "serving": lambda f: (
        f"{f['model_beyond_runtime_mb']:.0f} MB beyond the runtime alone, of which the same file opened by hand takes"
        f" {f['model_beyond_runtime_mb'] - f['model_beyond_by_hand_mb']:.0f}"
    ),
    "peers.flower": lambda f: (
        f"{f['flower_round_s']:.2f} s against {f['bitfleet_round_s']:.2f} s: {f['round_ratio']:.0f} times"
    ),
}


def _ends(figures: Figures) -> tuple[float, float]:
    ratios = [figures[f"int8-{bits}_latency_ratio"] for bits in _WIDTHS]
    return min(ratios), max(ratios)


def filled(text: str) -> str:
    """Returns a text with every cell as the stored results have it."""
    return _CELL.sub(lambda match: f"<!-- figures:{match[1]} -->{_cell(match[1])}<!-- -->", text)


def main() -> int:
    """Writes the documents, or says whether they are as the results are."""
    texts = {path: path.read_text() for path in DOCUMENTS}
    if "--write" not in sys.argv:
        return int(any(filled(text) != text for text in texts.values()))
    for path, text in texts.items():
        path.write_text(filled(text))
    return 0


def _cell(name: str) -> str:
    """Returns a cell from a result's figures, and from what its limits were held against as `required NAME`."""
    result = json.loads((RESULTS / f"{name}.json").read_text())
    required = {f"required {limit['name']}": limit["value"] for limit in result["requirements"]}
    return _CELLS[name]({**result["figures"], **required})


if __name__ == "__main__":
    sys.exit(main())
