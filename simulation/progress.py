"""Shows a simulated run while it goes on: a bar with the time left on a terminal, a line a round elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from coordinator.front.plain import plain
from simulation.run import World

__all__ = ["Shown", "shown_progress"]

_SHOWN = ("loss", "accuracy")


@dataclass
class Shown:
    """Watches a World. `seen` is the newest ledger line that was read, `done` the rounds that were published."""

    bar: Progress
    plainly: bool
    title: str = ""
    seen: int = 0
    done: int = 0
    task: Any = None
    at: tuple[int, int] = (-1, -1)
    said: set[str] = field(default_factory=set)

    def __call__(self, world: World) -> None:
        """Shows what is new; costs nothing where nothing is."""
        state, running = world.federation.state, len(world.jobs.running)
        at = state.number, running
        if at == self.at and not state.over:
            return
        rounds = state.planner.recipe.rounds
        if self.task is None:
            self.task = self.bar.add_task("", total=rounds, figures="")
        if at[0] != self.at[0] or state.over:
            self._read(world, rounds)
        self.at = at
        part = 1 - running / state.planner.recipe.devices.goal if running else 0.0
        name = f"{self.title}{self.done} of {rounds} rounds done"
        self.bar.update(self.task, completed=min(rounds, self.done + max(0.0, part)), description=name)

    def _read(self, world: World, rounds: int) -> None:
        state = world.federation.state
        for line in state.database.ledger(state.run, self.seen):
            self.seen = line["seq"]
            self.done += line["event"] == "phase" and line["phase"] == "published"
            if line["event"] == "evaluated":
                self.bar.update(self.task, figures=_figures(line))
            if self.plainly and line["event"] == "evaluated":
                done = f"{self.done + 1} of {rounds} done"  # with the next line, of the same moment
                self.bar.console.print(plain(f"{self.title}round {line['round']}: {_figures(line)}; {done}"))
            if reason := _trouble(line):
                self._say_once(reason, line["round"])

    def _say_once(self, reason: str, number: int) -> None:
        """Says why something did not work, the first time that it happens."""
        if reason not in self.said:
            self.said.add(reason)
            self.bar.console.print(plain(f"{self.title}round {number}: {reason}"))


@contextmanager
def shown_progress(title: str = "", quiet: bool = False) -> Iterator[Shown]:
    """Yields what `simulate` takes to watch a run; `quiet` shows nothing."""
    console = Console(quiet=quiet)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal, redirect_stderr=False) as bar:
        yield Shown(bar, not console.is_terminal, f"{title}: " if title else "")


def _trouble(line: Mapping[str, Any]) -> str:
    if line["event"] in ("declined", "refused"):
        return f"{line['event']}, {line['code']}: {line['reason']}"
    abandoned = line["event"] == "phase" and line["phase"] == "abandoned"
    return f"abandoned: {line['reason']}" if abandoned else ""


def _figures(line: Mapping[str, Any]) -> str:
    found = [f"{name} {line[name]:.4f}" for name in _SHOWN if isinstance(line.get(name), float)]
    return ", ".join(found) or str(line.get("error", "published"))
