"""What the tests of the simulation share: small orders, and worlds that are stopped in the middle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from coordinator.front.report import figures_of
from coordinator.home import open_home
from coordinator.recipe import load_recipe
from simulation.run import Order, World, simulate
from tests.memory_fleet import MemoryFleet


def order(folder: Path, *settings: str, recipe: str = "fedavg", **options: Any) -> Order:
    """Returns the order of three rounds of a few virtual devices that train on digits."""
    small = ("rounds=3", "train.epochs=1", 'model="mlp-16"')
    return Order(load_recipe(recipe, [*small, *settings]), folder, **options)


def echoes(folder: Path, *settings: str, **options: Any) -> Order:
    """Returns the order of rounds without data or training."""
    return order(folder, 'model="vector-50"', *settings, recipe="echo", **options)


class Stopped(Exception):
    """Ends a simulation from within, as Ctrl-C does."""


def interrupted(ordered: Order, number: int, collecting: bool = True) -> None:
    """Simulates until round `number`, and stops when some of its updates are accepted, or some are trained."""

    def watch(world: World) -> None:
        state, step, running = world.federation.state, type(world.federation).step, len(world.jobs.running)
        if not collecting and state.number == number and 0 < running < state.planner.recipe.devices.goal:
            raise Stopped

        def step_or_stop() -> bool:
            if collecting and state.number == number and "accepted" in state.book.outcomes(number).values():
                raise Stopped
            return step(world.federation)

        world.federation.step = step_or_stop  # type: ignore[method-assign,assignment]

    try:
        simulate(ordered, watch)
    except Stopped:
        return
    raise RuntimeError(f"round {number} was never seen half done")


def of_memory_fleet(ordered: Order, folder: Path, twin: Path | None = None) -> dict[str, Any]:
    """Returns the figures of the same recipe with live agents beside each other, see tests/memory_fleet.py.

    With `twin`, the folder of a simulated run, it has that run's key and name, which name the noise of private runs.
    """
    (folder / "home").mkdir(parents=True)
    if twin:
        shutil.copy(twin.parents[1] / "round.key", folder / "home")
    with open_home(folder / "home") as home:
        run = home.new_run(ordered.recipe, name=twin.name if twin else "")
        MemoryFleet(home, run, folder, ordered.recipe, name="device-{at:02d}").finish()
        return figures_of(home.database.ledger(run))
