"""A recipe: everything that makes one federation, in about twenty lines of TOML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from models.archs import spec_of
from models.tasks import task
from wire.errors import ConfigError
from wire.settings import check_range, parse_setting, read_toml, settings_from
from wire.stages.chain import Chain

__all__ = [
    "Devices",
    "Downlink",
    "Recipe",
    "Server",
    "Split",
    "Train",
    "Uplink",
    "load_recipe",
    "recipe_from_json",
    "recipe_names",
]


@dataclass(frozen=True, slots=True)
class Devices:
    """Whom a round needs. `over` invites more than the goal, `quorum` is the share of the goal that must report."""

    goal: int = 4
    over: float = 1.0
    quorum: float = 1.0
    selection_timeout_s: float = 300.0
    deadline_s: float = 3600.0
    late: str = "refuse"
    max_staleness: int = 4
    max_examples: int = 10_000_000
    max_abandoned: int = 5

    def __post_init__(self) -> None:
        check_range("devices.goal", self.goal, 1, 100_000)
        check_range("devices.over", self.over, 1, 10)
        check_range("devices.quorum", self.quorum, 0, 1)
        check_range("devices.selection_timeout_s", self.selection_timeout_s, 0, 1e9)
        check_range("devices.deadline_s", self.deadline_s, 0, 1e9)
        check_range("devices.max_staleness", self.max_staleness, 0, 1_000_000)
        check_range("devices.max_examples", self.max_examples, 1, 1 << 62)
        check_range("devices.max_abandoned", self.max_abandoned, 1, 1_000_000)
        if self.late not in ("refuse", "fold"):
            raise ConfigError(f"devices.late = {self.late!r}", remedy='choose "refuse" or "fold"')


@dataclass(frozen=True, slots=True)
class Split:
    """How a known task's data are shared out in the demo and in simulation; real devices bring their own.

    rule: iid, dirichlet:ALPHA, classes:K, subject; empty means subject for `watch` and iid for all others.
    """

    rule: str = ""
    seed: int = 1

    def __post_init__(self) -> None:
        if self.rule.partition(":")[0] not in ("", "iid", "dirichlet", "classes", "subject"):
            raise ConfigError(f"split.rule = {self.rule!r}", remedy="choose iid, dirichlet:ALPHA, classes:K or subject")


@dataclass(frozen=True, slots=True)
class Train:
    """Local training."""

    epochs: int = 1
    batch: int = 32
    rate: float = 0.1
    momentum: float = 0.0
    decay: float = 0.0

    def __post_init__(self) -> None:
        check_range("train.epochs", self.epochs, 0, 10_000)
        check_range("train.batch", self.batch, 1, 1 << 20)
        check_range("train.rate", self.rate, 0, 1e6)
        check_range("train.momentum", self.momentum, 0, 1)
        check_range("train.decay", self.decay, 0, 1)


@dataclass(frozen=True, slots=True)
class Uplink:
    """What devices send, and through which stages."""

    kind: str = "delta"
    scope: str = "update"
    stages: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("delta", "weights"):
            raise ConfigError(f"uplink.kind = {self.kind!r}", remedy='choose "delta" or "weights"')
        _check_coding("uplink", self.scope, self.stages)


@dataclass(frozen=True, slots=True)
class Downlink:
    """How the model goes down: as a snapshot, or with stages as the difference to what the devices hold."""

    scope: str = "update"
    stages: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        _check_coding("downlink", self.scope, self.stages)


@dataclass(frozen=True, slots=True)
class Server:
    """The server's step on the mean update."""

    optimiser: str = "sgd"
    rate: float = 1.0
    momentum: float = 0.9
    beta2: float = 0.99
    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        if self.optimiser not in ("sgd", "momentum", "adam"):
            raise ConfigError(f"server.optimiser = {self.optimiser!r}", remedy="choose sgd, momentum or adam")
        check_range("server.rate", self.rate, 0, 1e6)
        check_range("server.momentum", self.momentum, 0, 1)
        check_range("server.beta2", self.beta2, 0, 1)
        check_range("server.epsilon", self.epsilon, 1e-30, 1e6)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One federation. `model` empty means the task's own."""

    name: str
    task: str = "digits"
    model: str = ""
    seed: int = 1
    rounds: int = 10
    freeze: tuple[str, ...] = ()
    devices: Devices = field(default_factory=Devices)
    split: Split = field(default_factory=Split)
    train: Train = field(default_factory=Train)
    uplink: Uplink = field(default_factory=Uplink)
    downlink: Downlink = field(default_factory=Downlink)
    server: Server = field(default_factory=Server)

    def __post_init__(self) -> None:
        goal = task(self.task)
        spec_of(
            self.model or goal.arch, goal.input, goal.outputs, self.seed, self.freeze
        )  # else a run opens and breaks
        check_range("rounds", self.rounds, 1, 1_000_000)
        check_range("seed", self.seed, 0, (1 << 63) - 1)
        late_deltas = self.devices.late == "refuse" or self.uplink.kind == "delta"
        if not late_deltas:
            raise ConfigError(
                'devices.late = "fold" with uplink.kind = "weights"',
                remedy="late weights would undo newer rounds: send deltas, or refuse late updates",
            )

    @property
    def split_rule(self) -> str:
        """Returns how the data are shared out."""
        return self.split.rule or ("subject" if self.task == "watch" else "iid")

    def to_json(self) -> dict[str, Any]:
        """Returns the recipe as plain JSON values."""
        return asdict(self)


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


def recipe_from_json(table: Mapping[str, Any]) -> Recipe:
    """Returns the recipe that `to_json` gave."""
    return settings_from(Recipe, table, "stored recipe")


def _shipped(name: str) -> Path:
    if name not in recipe_names():
        raise ConfigError(f"recipe {name!r}", remedy=f"choose from {', '.join(recipe_names())}, or name a .toml file")
    return Path(str(resources.files("coordinator.recipes").joinpath(f"{name}.toml")))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(table, dict):
        raise ConfigError(f"{path} holds no table")
    return table


def _check_coding(place: str, scope: str, stages: tuple[Mapping[str, Any], ...]) -> None:
    if scope not in ("tensor", "update"):
        raise ConfigError(f"{place}.scope = {scope!r}", remedy='choose "tensor" or "update"')
    Chain.of(stages)
