"""The end of the demo: the trained model as ONNX files, rolled out, and which board took which and why."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from coordinator.front.plain import plain
from coordinator.rollout.book import RolloutBook
from coordinator.rollout.shown import facts_of
from coordinator.state.database import open_database
from models.archs import spec_of
from models.tasks import task
from wire.errors import StateError
from wire.pipe import python_module

__all__ = ["Ladder", "policy_of", "show_ladder"]

_HEALTH_S = 1.0
_STAGE_S = 120
_COLUMNS = ("device", "variant", "bits", "bytes", "accuracy", "latency ms")


@dataclass(frozen=True, slots=True)
class Ladder:
    """Where the files are, and the fleet that gets them."""

    home: Path
    folder: Path
    logs: Path
    fleet: str
    broker: str

    def climb(self, run: str) -> list[dict[str, Any]]:
        """Returns what every device runs now, and the files that none took, once the run's model is rolled out."""
        out = self.folder / "exports"
        self._call("export", run, "--home", str(self.home), "--out", str(out), "--calibration", "120", refused_too=True)
        words = ["--home", str(self.home), "--fleet", self.fleet, "--broker", self.broker, "--stage-s", str(_STAGE_S)]
        self._call("rollout", "start", str(out), *words)
        report = json.loads((out / "report.json").read_text())
        with closing(open_database(self.home / "fleet.sqlite", read_only=True)) as database:
            book = RolloutBook(database)
            devices = facts_of(book, book.newest())["devices"]
        return _rows(out, report["variants"], devices)

    def _call(self, *words: str, refused_too: bool = False) -> None:
        """Runs a command of `bitfleet`; `refused_too` takes an export of which some files did not pass the gate."""
        log = self.logs / f"{words[0]}.log"
        with log.open("ab") as output:
            command = python_module("coordinator", *words)
            done = subprocess.run(command, stdout=output, stderr=output, check=False)
        if done.returncode > int(refused_too) or done.returncode < 0:
            tail = log.read_text(errors="replace").strip().splitlines()[-5:]
            raise StateError(f"bitfleet {words[0]} ended with {done.returncode}:\n  " + "\n  ".join(tail))


def policy_of(name: str, arch: str, at: int) -> dict[str, Any]:
    """Returns the [model] settings of a demo's device: four boards that can afford different files."""
    known = task(name)
    spec = spec_of(arch or known.arch, known.input, known.outputs, 0)
    tight = {"max_bytes": spec.count // 4 + 3300}  # 2 bits a weight, and the nodes
    tight_int8 = {"profiles": ["int8"], "max_bytes": tight["max_bytes"] + 1200}
    kinds: tuple[dict[str, Any], ...] = ({}, {"profiles": ["int8"]}, tight, tight_int8)
    return {"health_s": _HEALTH_S, **kinds[at % len(kinds)]}


def show_ladder(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints what every device runs, and why."""
    table = Table(title="what every board took", title_justify="left")
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in ("device", "variant") else "right")
    taken = [row for row in rows if row["device"]]
    for row in taken:
        table.add_row(*(plain(_cell(row, name)) for name in _COLUMNS))
    console = Console()
    console.print(table)
    for row in taken:
        console.print(plain(f"  {row['device']}: {row['why']}"), soft_wrap=True, highlight=False)


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = row["latency_ms" if name == "latency ms" else name]
    if value is None:
        return "unknown"
    formats = {"bytes": "{:,}", "accuracy": "{:.4f}", "latency ms": "{:.3g}", "bits": "{:g}"}
    return formats.get(name, "{}").format(value)


def _rows(
    out: Path, variants: Sequence[Mapping[str, Any]], devices: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Returns a row a device, with what it measured itself, then a row for each file that no device took."""
    by_name = {one["name"]: one for one in variants}
    rows = [_row(out, by_name.get(device["variant"]), device) for device in devices]
    taken = {device["variant"] for device in devices}
    return rows + [_row(out, one, None) for name, one in by_name.items() if name not in taken]


def _row(out: Path, one: Mapping[str, Any] | None, device: Mapping[str, Any] | None) -> dict[str, Any]:
    found: Mapping[str, Any] = (
        next((each for each in device["found"] if one and each["variant"] == one["name"]), {}) if device else {}
    )
    return {
        "device": device["device"] if device else "",
        "outcome": device["outcome"] if device else "",
        "variant": one["name"] if one else "none",
        "bits": one["bits"] if one else None,
        "profile": one["profile"] if one else None,
        "path": str(out / one["file"]) if one else None,
        "bytes": one["bytes"] if one else None,
        "accuracy": one["accuracy"] if one else None,
        "latency_ms": found.get("latency_ms") if device else (one["latency_ms"] if one else None),
        "why": (device["reason"] or device["why"]) if device else "no device took it; latency of the laptop",
    }
