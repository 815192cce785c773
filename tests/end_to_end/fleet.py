"""A federation of real processes, each of which can be killed as `kill -9` would and started again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from coordinator.broker import Broker, start_broker
from coordinator.home import open_home
from coordinator.recipe import Recipe
from coordinator.recipes.personal import own_personal
from coordinator.state.database import Database, open_database
from models.tasks import task
from tests.end_to_end.crash_main import Point, crash_environment
from tests.memory_fleet import MemoryFleet
from wire.errors import StateError
from wire.pipe import die_with_parent
from wire.sign import make_key, public_key

__all__ = ["COORDINATOR", "Fleet", "fleet", "undisturbed_model"]

COORDINATOR = "coordinator"
ROOT = Path(__file__).parents[2]
_NAME = "test"
_POLL_S = 0.01


@dataclass
class Fleet:
    """The processes by name: the coordinator, and each device's agent. `points` says where which of them dies."""

    folder: Path
    recipe: Recipe
    broker: Broker
    points: dict[str, dict[str, list[Point]]] = field(default_factory=dict)
    name: str = ""
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for folder in (self.home, self.logs, *(self.fuses / name for name in (COORDINATOR, *self.devices))):
            folder.mkdir(parents=True)
        make_key(self.home / "round.key")
        self.recipe_file = self.folder / "recipe.json"
        self.recipe_file.write_text(json.dumps(self.recipe.to_json()))
        for at, device in enumerate(self.devices):
            (self.folder / f"{device}.toml").write_text(self._config(device, at))

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def logs(self) -> Path:
        return self.folder / "logs"

    @property
    def fuses(self) -> Path:
        return self.folder / "fuses"

    @property
    def devices(self) -> list[str]:
        return [f"dev-{at}" for at in range(self.recipe.devices.goal)]

    def start(self, name: str) -> None:
        """Starts the coordinator or an agent; a coordinator goes on with the run that is there."""
        module, words = self._command(name)
        environment = {**os.environ}
        if name in self.points:
            environment |= crash_environment(module, self.points[name], self.fuses / name)
            module = "tests.end_to_end.crash_main"
        with (self.logs / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", module, *words],
                cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with_parent,
            )  # fmt: skip

    def start_all(self) -> None:
        for name in (COORDINATOR, *self.devices):
            self.start(name)

    def kill(self, name: str) -> None:
        """Kills a process and waits until the kernel has taken it away; "broker" is one of them."""
        if name == "broker":
            self.broker.kill()
            return
        process = self.running[name]
        process.kill()
        process.wait()

    def restart(self, name: str) -> None:
        """Starts what was killed."""
        if name == "broker":
            self.broker.restart()
        else:
            self.start(name)

    def kill_child(self, device: str) -> bool:
        """Kills an agent's training child; tells whether there was one."""
        try:
            children = psutil.Process(self.running[device].pid).children()
            for child in children:
                child.kill()
        except psutil.NoSuchProcess:
            return False
        return bool(children)

    def revive(self) -> list[str]:
        """Starts again every process that has killed itself, and returns their names; any other end is an error."""
        dead = []
        for name, process in list(self.running.items()):
            code = process.poll()
            if code == -signal.SIGKILL:
                dead.append(name)
                self.start(name)
            elif code is not None and (name, code) != (COORDINATOR, 0):
                raise AssertionError(f"{name} ended with {code}:\n{self.tail(name)}")
        return dead

    @property
    def over(self) -> bool:
        """Tells whether the coordinator has ended of its own accord."""
        return self.running[COORDINATOR].poll() == 0

    def finish(self, longest_s: float) -> None:
        """Waits for the end of the run, and brings back whoever kills itself on the way."""
        ends_s = time.monotonic() + longest_s
        while not self.over:
            self.revive()
            assert time.monotonic() < ends_s, f"not done after {longest_s} s:\n{self.tails()}"
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Ends all processes."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            _await_end(process)

    @contextmanager
    def books(self) -> Iterator[Database | None]:
        """Opens the coordinator's database for reading; None while there is none."""
        try:
            database = open_database(self.home / "fleet.sqlite", read_only=True)
        except StateError:
            yield None
            return
        try:
            yield database
        finally:
            database.close()

    @property
    def run(self) -> str:
        """Returns the name of the one run; empty before there is one."""
        with self.books() as database:
            row = database.row("SELECT run FROM runs") if database else None
            return str(row["run"]) if row else ""

    def steps(self) -> int:
        """Returns how many moves of rounds the ledger holds."""
        with self.books() as database:
            row = database.row("SELECT count(*) AS n FROM ledger WHERE event = 'phase'") if database else None
            return int(row["n"]) if row else 0

    def ledger(self) -> list[dict[str, Any]]:
        with self.books() as database:
            assert database, "no database"
            return [dict(line) for line in database.ledger(self.run)]

    def tail(self, name: str, lines: int = 25) -> str:
        path = self.logs / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "no log"

    def tails(self) -> str:
        return "\n".join(f"--- {name}\n{self.tail(name)}" for name in (COORDINATOR, *self.devices))

    def _command(self, name: str) -> tuple[str, list[str]]:
        if name != COORDINATOR:
            return "edge_agent", ["run", "--config", str(self.folder / f"{name}.toml")]
        words = ["--home", str(self.home), "--fleet", _NAME, "--broker", self.broker.url]
        run = self.run
        return COORDINATOR, ["resume", run, *words] if run else [*self._new, *words]

    @property
    def _new(self) -> list[str]:
        return ["serve", "--recipe", str(self.recipe_file), *(["--run-name", self.name] if self.name else [])]

    def _config(self, device: str, at: int) -> str:
        lines = [f'device = "{device}"', f'fleet = "{_NAME}"', f'broker = "{self.broker.url}"']
        lines += [f'state_dir = "{self.folder / device}"', f'coordinator_key = "{public_key(self.home / "round.key")}"']
        lines += ["[data]", f'task = "{self.recipe.task}"']
        if task(self.recipe.task).data is not None:
            lines += [f'split = "{self.recipe.split_rule}"', f"parts = {self.recipe.devices.goal}", f"part = {at}"]
            lines += [f"seed = {self.recipe.split.seed}", f"examples = {self.recipe.split.examples}"]
        lines += ["[train]", "nice = 0", "attempts = 1000000", "[personal]"]
        own = own_personal(self.recipe.personal, at)
        return "\n".join([*lines, *(f"{name} = {json.dumps(value)}" for name, value in own.items()), ""])


def _await_end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def fleet(
    kind: str,
    folder: Path,
    recipe: Recipe,
    points: dict[str, dict[str, list[Point]]] | None = None,
    *,
    name: str = "",
) -> Iterator[Fleet]:
    """Starts a broker and everybody; ends them all with the block."""
    with start_broker(kind, folder / "broker") as broker:
        made = Fleet(folder, recipe, broker, points or {}, name)
        try:
            made.start_all()
            yield made
        finally:
            made.stop()


def undisturbed_model(folder: Path, recipe: Recipe, twin: Fleet | None = None) -> str:
    """Returns the digest of the final model of the same federation in one process, where nothing ever fails.

    With `twin` it has that fleet's key and run name, which name the noise of private runs.
    """
    if twin:
        (folder / "home").mkdir(parents=True)
        shutil.copy(twin.home / "round.key", folder / "home")
    with open_home(folder / "home") as home:
        return MemoryFleet(home, home.new_run(recipe, name=twin.run if twin else ""), folder, recipe).finish()
