"""A recipe: everything that makes one federation, in about twenty lines of TOML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from coordinator.recipes.combine import check_combination, check_patterns, check_skips
from coordinator.recipes.personal import check_personal
from coordinator.recipes.sections import (
    Devices,
    Downlink,
    Evaluate,
    Privacy,
    Schedule,
    Server,
    Split,
    Train,
    Uplink,
)
from models.archs import spec_of
from models.tasks import task
from wire.errors import ConfigError, said_by
from wire.settings import check_range, parse_setting, read_toml, settings_from
from wire.spec import ModelSpec

__all__ = ["Recipe", "load_recipe", "ordered_recipe", "recipe_from_json", "recipe_names"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """One federation. `model` empty means the task's own.

    `trunk` is a .npz file with the frozen tensors, if they do not come from the seed.
    """

    name: str
    task: str = "digits"
    model: str = ""
    seed: int = 1
    rounds: int = 10
    start: str = "uniform"
    freeze: tuple[str, ...] = ()
    devices: Devices = field(default_factory=Devices)
    split: Split = field(default_factory=Split)
    train: Train = field(default_factory=Train)
    uplink: Uplink = field(default_factory=Uplink)
    downlink: Downlink = field(default_factory=Downlink)
    server: Server = field(default_factory=Server)
    schedule: Schedule = field(default_factory=Schedule)
    privacy: Privacy = field(default_factory=Privacy)
    personal: Mapping[str, Any] | None = None
    evaluate: Evaluate = field(default_factory=Evaluate)
    trunk: str = ""

    def __post_init__(self) -> None:
        if self.start not in ("uniform", "normal"):
            raise ConfigError(f"start = {self.start!r}", remedy='choose "uniform" or "normal"')
        spec = self.spec
        check_patterns("uplink.whole", self.uplink.whole, [tensor.name for tensor in spec.trainable])
        check_range("rounds", self.rounds, 1, 1_000_000)
        check_range("seed", self.seed, 0, (1 << 63) - 1)
        check_combination(self)
        check_skips(self.train, spec)
        check_personal(self.personal, spec)

    @property
    def spec(self) -> ModelSpec:
        """Returns the net."""
        goal, bell = task(self.task), self.start == "normal"
        return spec_of(self.model or goal.arch, goal.input, goal.outputs, self.seed, self.freeze, bell=bell)

    @property
    def split_rule(self) -> str:
        """Returns how the data are shared out."""
        return self.split.rule or ("subject" if self.task == "watch" else "iid")

    def to_json(self) -> dict[str, Any]:
        """Returns the recipe as plain JSON values; what is not there is left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def recipe_names() -> list[str]:
    """Returns the recipes that ship."""
    files = resources.files("coordinator.recipes").iterdir()
    return sorted(item.name.removesuffix(".toml") for item in files if item.name.endswith(".toml"))


def load_recipe(name: str, settings: Iterable[str] = ()) -> Recipe:
    """Returns a shipped recipe or the one in a file, with KEY=VALUE settings laid over it."""
    path = Path(name) if name.endswith((".toml", ".json")) else _shipped(name)
    table = _read_json(path) if path.suffix == ".json" else read_toml(path)
    for setting in settings:
        keys, value = parse_setting(setting)
        place = table
        for key in keys[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise ConfigError(f"setting {setting!r}: {key!r} is not a table")
        place[keys[-1]] = value
    return settings_from(Recipe, {"name": path.stem, **table}, f"recipe {name}")


def ordered_recipe(
    name: str, settings: Iterable[str], *, task: str, goal: int, rounds: int, seed: int | None
) -> Recipe:
    """Returns a recipe as the options of a command order it: 0, None and "" leave what it says; `settings` come last.

    `goal` is how many devices a round needs. A task comes with its own net.
    """
    said = [f'task="{task}"', 'model=""'] if task else []
    said += [f"devices.goal={goal}"] if goal else []
    said += [f"rounds={rounds}"] if rounds else []
    said += [f"seed={seed}"] if seed is not None else []
    return load_recipe(name, [*said, *settings])


def recipe_from_json(table: Mapping[str, Any], run: str = "a stored run") -> Recipe:
    """Returns the recipe that `to_json` gave; ConfigError, naming `run`, if another version of ours allowed more."""
    try:
        return settings_from(Recipe, table, "stored recipe")
    except ConfigError as exc:  # what is wrong with a setting: its remedy is of no use to a run that has begun
        remedy = "go on with the version that began it, or start a new run, with a new name"
        raise ConfigError(f"{run} has settings that this version refuses: {exc.message}", remedy=remedy) from exc


def _shipped(name: str) -> Path:
    if name not in recipe_names():
        raise ConfigError(f"recipe {name!r}", remedy=f"choose from {', '.join(recipe_names())}, or name a .toml file")
    return Path(str(resources.files("coordinator.recipes").joinpath(f"{name}.toml")))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path} cannot be read: {said_by(exc)}") from exc
    if not isinstance(table, dict):
        raise ConfigError(f"{path} holds no table")
    return table
