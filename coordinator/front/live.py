"""Shows a run while it goes on, read from the database: a live table on a terminal, else a line a round."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.live import Live
from rich.table import Table

from coordinator.front.plain import plain
from coordinator.recipe import Recipe
from coordinator.state.database import Database, open_database
from wire.errors import StateError

__all__ = ["Progress", "watch_run"]

T = TypeVar("T")

_EVERY_S = 0.25


@dataclass
class Progress:
    """What is known of the run that is entered after this was made; reads only the ledger lines that are new.

    `before` is the newest run that was there already: a second demo in the same folder shows its own run alone.
    """

    database_path: Path
    recipe: Recipe
    broker: str
    before: str = field(init=False)
    run: str = ""
    seen: int = 0
    round: int = 0
    done: int = 0
    phase: str = "starting"
    evaluated: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    devices: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before = self._looked(Database.newest_run) or ""

    def read(self) -> list[str]:
        """Takes in what is new and returns a line for each round that ended."""
        lines = self._looked(lambda database: [line for row in self._new(database) if (line := self._take(row))])
        return lines or []

    def _looked(self, look: Callable[[Database], T]) -> T | None:
        try:
            database = open_database(self.database_path, read_only=True)
        except StateError:
            return None  # the coordinator has not made it yet
        try:
            return look(database)
        finally:
            database.close()

    def table(self) -> Table:
        """Returns the devices as a table."""
        title = f"{self.recipe.name} on {self.recipe.task}, {self.broker}: round {self.round}, {self.phase}"
        table = Table(title=f"{title}; {self._done()}", title_justify="left")
        for name in ("device", "state", "round", "loss", "after", "bytes", "seconds", "peak MB"):
            table.add_column(name, justify="left" if name in ("device", "state") else "right")
        for name in sorted(self.devices):
            table.add_row(plain(name), *(plain(self.devices[name].get(column, "")) for column in _COLUMNS))
        return table

    def _new(self, database: Database) -> list[Mapping[str, Any]]:
        run = database.newest_run()
        if run in ("", self.before):
            return []
        if run != self.run:
            self.run, self.seen, self.done = run, 0, 0
        lines = list(database.ledger(run, self.seen))
        for device in database.rows("SELECT device, state FROM devices WHERE state IN ('lost', 'disconnected')"):
            self.devices.setdefault(device["device"], {})["state"] = device["state"]
        self.seen = lines[-1]["seq"] if lines else self.seen
        return lines

    def _take(self, line: Mapping[str, Any]) -> str | None:
        if line["event"] == "phase":
            self.round, self.phase = line["round"], line["phase"]
            for device in line.get("devices", ()):
                self.devices.setdefault(device, {})["state"] = "invited"
            if self.phase == "abandoned":
                return f"round {self.round}: abandoned, {line['reason']}"
            return self._summary(line["round"]) if self.phase == "published" else None
        if line["event"] == "evaluated":
            self.evaluated[line["round"]] = line
        if line["event"] in ("accepted", "declined", "refused"):
            self.devices.setdefault(line["device"], {}).update(_cells(line), state=line["event"])
        return None

    def _summary(self, number: int) -> str:
        self.done += 1
        figures = self.evaluated.get(number, {})
        shown = [f"{name} {figures[name]:.4f}" for name in ("loss", "accuracy") if name in figures]
        return f"round {number}: {', '.join(shown) or 'published'}; {self._done()}"

    def _done(self) -> str:
        return f"{self.done} of {self.recipe.rounds} done"


_SHOWN = (
    ("loss_before", "loss_before", 1, ".4f"),
    ("loss_after", "loss_after", 1, ".4f"),
    ("seconds", "seconds", 1, ".2f"),
    ("peak", "peak_bytes", 1e6, ".0f"),
)
_COLUMNS = ("state", "round", "loss_before", "loss_after", "bytes", "seconds", "peak")


def watch_run(progress: Progress, process: subprocess.Popen[bytes]) -> None:
    """Shows the run until the coordinator's process ends."""
    console = Console()
    if not console.is_terminal:
        _watch_plainly(progress, process, console)
        return
    with Live(progress.table(), console=console, auto_refresh=False) as live:
        while True:
            ended = process.poll() is not None
            for line in progress.read():
                live.console.print(plain(line))
            live.update(progress.table(), refresh=True)
            if ended:
                return
            time.sleep(_EVERY_S)


def _watch_plainly(progress: Progress, process: subprocess.Popen[bytes], console: Console) -> None:
    while True:
        ended = process.poll() is not None
        for line in progress.read():
            console.print(plain(line))
        if ended:
            console.print(progress.table())
            return
        time.sleep(_EVERY_S)


def _cells(line: Mapping[str, Any]) -> dict[str, str]:
    cells = {"round": str(line["round"])}
    metrics = line.get("metrics", {})
    if "bytes" in line:
        cells["bytes"] = f"{line['bytes']:,}"
    for cell, name, scale, form in _SHOWN:
        value = metrics.get(name)
        if isinstance(value, int | float):  # a device may send text
            cells[cell] = format(value / scale, form)
    return cells
