"""Several recipes, each with several seeds, one run after the other; what is finished is not done again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from coordinator.recipe import Recipe
from simulation.progress import shown_progress
from simulation.run import Order, simulate
from wire.errors import ConfigError

__all__ = ["Sweep", "sweep", "table_of"]


@dataclass(frozen=True, slots=True)
class Sweep:
    """Every recipe with every seed, in folders RECIPE-SEED. The recipe's seed is used for its split as well."""

    recipes: tuple[Recipe, ...]
    seeds: tuple[int, ...]
    folder: Path
    devices: int = 0
    workers: int = 0
    ray: str = ""

    def __post_init__(self) -> None:
        names = [recipe.name for recipe in self.recipes]
        if not self.recipes or not self.seeds:
            raise ConfigError("a sweep of no runs", remedy="give --recipes a,b and --seeds 1,2,3")
        if len({*names}) < len(names) or len({*self.seeds}) < len(self.seeds):
            raise ConfigError(f"recipes {names} with seeds {list(self.seeds)}", remedy="name each of them once")

    def orders(self) -> Iterator[tuple[str, Order]]:
        """Yields the label and the order of every run."""
        for recipe in self.recipes:
            for seed in self.seeds:
                own = replace(recipe, seed=seed, split=replace(recipe.split, seed=seed))
                label = f"{recipe.name}-{seed}"
                yield label, Order(own, self.folder / label, self.devices, self.workers, self.ray)


def sweep(ordered: Sweep, quiet: bool = False) -> list[dict[str, Any]]:
    """Does the runs that are not finished and returns the figures of all."""
    orders = list(ordered.orders())  # all are checked before the first begins
    return [_done(label, order, quiet) for label, order in orders]


def table_of(figures: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row a recipe: runs, final accuracy (mean and standard deviation over seeds) and mean bytes."""
    rows = []
    for recipe in dict.fromkeys(each["recipe"] for each in figures):
        own = [each for each in figures if each["recipe"] == recipe]
        known = [each["accuracy"] for each in own if each["accuracy"] is not None]
        rows.append(
            {
                "recipe": recipe,
                "seeds": len(own),
                "accuracy": fmean(known) if known else None,
                "deviation": stdev(known) if len(known) > 1 else None,
                "bytes_up": round(fmean(each["bytes_up"] for each in own)),
                "bytes_down": round(fmean(each["bytes_down"] for each in own)),
            }
        )
    return rows


def _done(label: str, order: Order, quiet: bool) -> dict[str, Any]:
    stored = order.folder / "figures.json"
    if stored.exists():
        found: dict[str, Any] = json.loads(stored.read_text())
        if found["ordered"] == _ordered(order):
            return found
        raise ConfigError(f"{order.folder} holds another run", remedy="name another --dir")
    with shown_progress(label, quiet) as watch:
        figures = {**simulate(order, watch), "seed": order.recipe.seed, "ordered": _ordered(order)}
    stored.write_text(json.dumps(figures, indent=2))
    return figures


def _ordered(order: Order) -> Any:
    return json.loads(json.dumps({"recipe": order.recipe.to_json(), "devices": order.count}))
