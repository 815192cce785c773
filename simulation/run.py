"""One simulated run: a coordinator and its virtual devices over a hub in memory, in virtual time.

The clock moves only when nobody has anything to do and no job is running, so nothing depends on this machine's speed.
A run that was interrupted goes on from its folder.
"""

from __future__ import annotations

import json
import select
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator.federation import Federation
from coordinator.front.demo import provide_data
from coordinator.front.report import figures_of, write_report
from coordinator.home import Home, open_home
from coordinator.learning.evaluator import ChildEvaluator, Evaluator, Question, evaluate
from coordinator.recipe import Recipe, recipe_from_json
from coordinator.state.database import open_database
from simulation.crowd import FLEET, Crowd, Seat
from simulation.executor import Executor, InlineExecutor, LocalExecutor
from simulation.jobs import Jobs
from wire.errors import ConfigError
from wire.settings import check_range, make_folder, usable
from wire.transport import Hub, MemoryTransport

__all__ = ["Clock", "Order", "World", "left_order", "simulate"]

_PAYLOAD_BYTES = 1 << 28  # an update is one piece
_TICK_S = 0.001
_GLANCE_S = 0.5


@dataclass(frozen=True, slots=True)
class Order:
    """What to simulate and where the files go. `devices` = 0: as many as a round needs; `workers` = 0: this process."""

    recipe: Recipe
    folder: Path
    devices: int = 0
    workers: int = 0
    ray: str = ""

    def __post_init__(self) -> None:
        check_range("--workers", self.workers, 0, 1024)
        check_range("--devices", self.count, 1, 1_000_000)
        if self.count < self.recipe.devices.goal:
            raise ConfigError(
                f"{self.count} devices, and a round needs {self.recipe.devices.goal}",
                remedy="give more --devices or fewer --clients-per-round",
            )
        if self.ray and self.workers:
            raise ConfigError(f"--workers {self.workers} and --ray {self.ray}", remedy="give one of them")

    @property
    def count(self) -> int:
        """Returns how many virtual devices there are."""
        return self.devices or self.recipe.devices.goal


@dataclass(slots=True)
class Clock:
    """Virtual seconds."""

    now_s: float = 0.0

    def __call__(self) -> float:
        """Returns the time."""
        return self.now_s


@dataclass(slots=True)
class _InlineEvaluator:
    question: Question | None = None
    wake: tuple[int, ...] = ()

    def start(self, question: Question) -> None:
        self.question = question

    def poll(self) -> dict[str, Any] | None:
        question, self.question = self.question, None
        return evaluate(question) if question else None

    def stop(self) -> None:
        self.question = None


Watch = Callable[["World"], None]


@dataclass
class World:
    """All of one run. `seat` is the coordinator's place at the hub, `watch` is called whenever something happened."""

    federation: Federation
    seat: Seat
    crowd: Crowd
    jobs: Jobs
    clock: Clock
    watch: Watch
    started: int = field(default=0)

    def run(self) -> None:
        """Goes on until the run is over and nobody has anything left to do."""
        while self._act() or not self.federation.over or self.crowd.live:
            self.watch(self)

    def _act(self) -> bool:
        """Lets everybody act, or waits for what runs, or moves the clock; tells whether anybody acted."""
        if self._coordinate() | self.crowd.step():
            return True
        evaluator = self.federation.evaluator
        if self.jobs.running:
            self.jobs.gather(lambda: self.watch(self))
        elif evaluator.wake:
            select.select(evaluator.wake, [], [], _GLANCE_S)
        else:
            due_s = min(self.seat.due_s, self.crowd.due_s)
            self.clock.now_s = max(due_s, self.clock.now_s + _TICK_S)
        return False

    def _coordinate(self) -> bool:
        busy = False
        while self.federation.step() or self.federation.conductor.folding is not None:
            busy = True
        return busy


def simulate(order: Order, watch: Watch = lambda world: None) -> dict[str, Any]:
    """Runs or resumes the run in the order's folder to its end and returns its figures; none is done twice."""
    provide_data(order.recipe)
    make_folder(order.folder, "--dir")
    with ExitStack() as stack:
        home = stack.enter_context(open_home(order.folder / "home", durable=False, option="--dir"))
        run = _entered(home, order)
        with usable(order.folder / "events.log", "--dir"):
            events = stack.enter_context((order.folder / "events.log").open("a"))
        world = _world(home, run, order, watch, stack)
        with redirect_stderr(events):
            world.run()
        planner, folder = world.federation.state.planner, home.run_folder(run)
        write_report(home.database, run, folder, planner)
        sizes = {"devices": order.count, "clients_per_round": order.recipe.devices.goal, "params": planner.spec.count}
        return {**figures_of(home.database.ledger(run)), **sizes, "run_dir": str(folder)}


def left_order(folder: Path, workers: int = 0, ray: str = "") -> Order:
    """Returns the order that a folder's run began with, so that it can go on."""
    database = open_database(folder / "home" / "fleet.sqlite", read_only=True)
    fact = database.row("SELECT value FROM facts WHERE name = 'simulated'")
    database.close()
    if fact is None:
        raise ConfigError(f"{folder} holds no simulated run", remedy="name a folder that `bitfleet simulate` made")
    wanted = json.loads(fact["value"])
    recipe = recipe_from_json(wanted["recipe"], f"the run in {folder}")
    return Order(recipe, folder, wanted["devices"], workers, ray)


def _world(home: Home, run: str, order: Order, watch: Watch, stack: ExitStack) -> World:
    hub, clock = Hub(), Clock()
    jobs, evaluator = Jobs(_executor(order)), _evaluator(order)
    stack.callback(jobs.executor.stop)
    stack.callback(evaluator.stop)
    seat = Seat(MemoryTransport(hub, _PAYLOAD_BYTES), clock)
    federation = home.federation(run, FLEET, seat, evaluator, clock)
    folder = order.folder.absolute() / "devices"
    crowd = Crowd(order.recipe, order.count, folder, home.public_key, hub, jobs, clock, _PAYLOAD_BYTES)
    crowd.enter(federation.state.registry)
    return World(federation, seat, crowd, jobs, clock, watch)


def _executor(order: Order) -> Executor:
    if order.ray:
        from simulation.ray_executor import RayExecutor  # noqa: PLC0415

        distant: Executor = RayExecutor(order.ray)
        return distant
    return LocalExecutor(order.workers) if order.workers else InlineExecutor()


def _evaluator(order: Order) -> Evaluator:
    return ChildEvaluator() if order.workers else _InlineEvaluator()


def _entered(home: Home, order: Order) -> str:
    """Returns the run of this folder, entered anew if there is none; ConfigError if it is another one than ordered."""
    run = home.database.newest_run()
    wanted = {"recipe": order.recipe.to_json(), "devices": order.count}
    if not run:
        with (
            home.database.change()
        ):  # first, so that no run is ever without it; of a run that never came it says nothing
            home.database.write("INSERT OR REPLACE INTO facts VALUES ('simulated', ?)", json.dumps(wanted))
        return home.new_run(order.recipe, simulated=True, fleet=FLEET)
    fact = home.database.row("SELECT value FROM facts WHERE name = 'simulated'")
    if fact is None or json.loads(fact["value"]) != json.loads(json.dumps(wanted)):
        raise ConfigError(
            f"{order.folder} holds a run of another recipe or another number of devices",
            remedy="give it the same settings to go on with it, or name another --dir",
        )
    return run
