"""A trial: one recipe with settings laid over it, simulated once a seed. Claims share trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.recipe import Recipe, load_recipe, recipe_from_json
from wire.errors import ConfigError

__all__ = ["Trial", "is_of", "listed", "recipe_of"]


@dataclass(frozen=True, slots=True)
class Trial:
    """What to simulate. `devices` is the size of the fleet, 0 for as many as a round needs.

    `long` trials take ten minutes or more and run only when asked for. `offset` is added to the seed, so that a trial
    that chooses a setting never sees the seeds of the trials that are judged. `real` trials are not simulated: another
    benchmark runs them with real processes and leaves their figures in the same store. After every `stops` rounds the
    positions of the largest weights are noted.
    """

    name: str
    recipe: str
    settings: tuple[str, ...] = ()
    devices: int = 0
    long: bool = False
    offset: int = 0
    real: bool = False
    stops: int = 0


def recipe_of(trial: Trial, seed: int) -> Recipe:
    """Returns the whole recipe of a trial; the seed also decides how the data are shared out."""
    number = seed + trial.offset
    named = (f'name="{trial.name}"', f"seed={number}", f"split.seed={number}")
    return load_recipe(trial.recipe, (*trial.settings, *named))


def is_of(record: Mapping[str, Any], trial: Trial, seed: int) -> bool:
    """Tells whether a stored record was made with the trial's settings as they are now.

    Both sides are compared as recipes: a setting that recipes got since, left at its default, changes nothing.
    """
    try:
        stored = recipe_from_json(record["settings"])
    except (ConfigError, KeyError):
        return False
    return stored == recipe_from_json(_plain(recipe_of(trial, seed))) and record.get("devices") == trial.devices


def _plain(recipe: Recipe) -> Any:
    return listed(recipe.to_json())


def listed(value: Any) -> Any:
    """Returns a value as JSON would give it back: tuples become lists."""
    if isinstance(value, Mapping):
        return {name: listed(item) for name, item in value.items()}
    return [listed(item) for item in value] if isinstance(value, list | tuple) else value
