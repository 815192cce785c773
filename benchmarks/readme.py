"""Writes the stored figures into README and docs/export.md: `python -m benchmarks.readme --write`; a test compares.

Each cell stands between `<!-- figures:NAME -->` and `<!-- -->`, and is made from benchmarks/results/NAME.json; so is
each table between `<!-- figures:NAME:TABLE -->` and `<!-- -->`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["DOCUMENTS", "filled", "main"]

README = Path(__file__).parent.parent / "README.md"
DOCUMENTS = (README, README.parent / "docs" / "export.md")
RESULTS = Path(__file__).parent / "results"
_CELL = re.compile(r"<!-- figures:([a-z.]+(?::[a-z]+)?) -->.*?<!-- -->", re.DOTALL)

Figures = Mapping[str, Any]
_WIDTHS = (8, 6, 5, 4, 3, 2)
_PROFILES, _MODELS, _SIZES = ("int8", "float"), ("fedavg", "mqat"), ("large", "middle", "small")

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
    "ladder:widths": lambda f: _rows(
        ("bits", "FedAvg, int8", "FedAvg, float", "multi-bit QAT, int8", "multi-bit QAT, float"),
        (
            ("32", "", *_percent(f, "fedavg float"), "", *_percent(f, "mqat float")),
            *((str(b), *_percent(f, *(f"{m} {p}-{b}" for m in _MODELS for p in _PROFILES))) for b in _WIDTHS),
        ),
    ),
    "bundles": lambda f: _rows(
        ("weights of the net", "profile", *(f"{bits} bits" for bits in _WIDTHS), "from 4 to 8 bits"),
        (_bundle(f, size, profile) for size in _SIZES for profile in _PROFILES),
    ),
    "ladder:mixed": lambda f: _rows(
        ("at the size of", "points that the even width loses", "points that mixed widths are above the best even one"),
        (_gain(f, f"{profile}-{bits}") for profile in _PROFILES for bits in (4, 3)),
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


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table on lines of its own."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _percent(figures: Figures, *names: str) -> list[str]:
    return [f"{100 * figures[f'{name} accuracy']:.2f} %" for name in names]


def _bundle(figures: Figures, size: str, profile: str) -> list[str]:
    """Returns by how much each prefix is larger than the file of its width, and the rest beside the file of 8 bits."""
    over = [100 * figures[f"{size} {profile}-{bits} prefix over file"] - 100 for bits in _WIDTHS]
    rest = figures[f"{size} {profile} rest from 4 to 8 bits over file"]
    count = f"{figures[f'{size} parameters']:,.0f}"
    return [count, profile, *(f"+{each:.1f} %" for each in over), f"{rest:.2f} of the file of 8"]


def _gain(figures: Figures, name: str) -> list[str]:
    texts = (f"layers {name} lost", f"layers mixed over {name}")
    ends = ("mean", "standard error", "least", "most")
    shown = "{:.2f} ± {:.2f} ({:.2f} to {:.2f})"
    return [name, *(shown.format(*(figures[f"{text}, {end}"] for end in ends)) for text in texts)]


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
    result = json.loads((RESULTS / f"{name.partition(':')[0]}.json").read_text())
    required = {f"required {limit['name']}": limit["value"] for limit in result["requirements"]}
    return _CELLS[name]({**result["figures"], **required})


if __name__ == "__main__":
    sys.exit(main())
