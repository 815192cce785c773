"""The sections of a recipe, each checked as it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from coordinator.recipes.rounding import rounded_up
from models.weights.settings import check_bits, check_penalty, check_transforms
from wire.errors import ConfigError
from wire.settings import check_range
from wire.stages.chain import Chain

__all__ = ["Devices", "Downlink", "Evaluate", "Privacy", "Schedule", "Server", "Split", "Train", "Uplink"]


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
    max_magnitude: float = 1e6
    max_abandoned: int = 5

    def __post_init__(self) -> None:
        check_range("devices.goal", self.goal, 1, 100_000)
        check_range("devices.over", self.over, 1, 10)
        check_range("devices.quorum", self.quorum, 0, 1)
        check_range("devices.selection_timeout_s", self.selection_timeout_s, 0, 1e9)
        check_range("devices.deadline_s", self.deadline_s, 0, 1e9)
        check_range("devices.max_staleness", self.max_staleness, 0, 1_000_000)
        check_range("devices.max_examples", self.max_examples, 1, 1 << 62)
        # Squared, as adam does, the largest is 1e24: float32 has room for the sum over any fleet and many rounds.
        check_range("devices.max_magnitude", self.max_magnitude, 1e-6, 1e12)
        check_range("devices.max_abandoned", self.max_abandoned, 1, 1_000_000)
        if self.late not in ("refuse", "fold"):
            raise ConfigError(f"devices.late = {self.late!r}", remedy='choose "refuse" or "fold"')

    @property
    def invited(self) -> int:
        """Returns how many devices a round invites."""
        return rounded_up(self.over * self.goal)


@dataclass(frozen=True, slots=True)
class Split:
    """How a known task's data are shared out in the demo and in simulation; real devices bring their own.

    rule: iid, dirichlet:ALPHA, classes:K, subject; empty means subject for `watch` and iid for all others.
    With `examples` only that many of the training set, drawn from the seed, are shared out; 0 means all.
    """

    rule: str = ""
    seed: int = 1
    examples: int = 0

    def __post_init__(self) -> None:
        if self.rule.partition(":")[0] not in ("", "iid", "dirichlet", "classes", "subject"):
            raise ConfigError(f"split.rule = {self.rule!r}", remedy="choose iid, dirichlet:ALPHA, classes:K or subject")
        check_range("split.examples", self.examples, 0, 1 << 31)


@dataclass(frozen=True, slots=True)
class Train:
    """Local training. With `final_rate` the rate falls (or grows) geometrically from `rate` to it over the rounds."""

    epochs: int = 1
    batch: int = 32
    rate: float = 0.1
    final_rate: float = 0.0
    momentum: float = 0.0
    decay: float = 0.0
    transforms: tuple[Mapping[str, Any], ...] = ()
    penalty: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_range("train.epochs", self.epochs, 0, 10_000)
        check_range("train.batch", self.batch, 1, 1 << 20)
        check_range("train.rate", self.rate, 0, 1e6)
        check_range("train.final_rate", self.final_rate, 0, 1e6)
        check_range("train.momentum", self.momentum, 0, 1)
        check_range("train.decay", self.decay, 0, 1)
        check_transforms(self.transforms)
        check_penalty(self.penalty)

    def rate_at(self, number: int, rounds: int) -> float:
        """Returns the rate of a round: rate * (final_rate / rate)^(number / (rounds - 1))."""
        if not self.final_rate or not self.rate or rounds < 2:
            return self.rate
        return float(self.rate * (self.final_rate / self.rate) ** (min(number, rounds - 1) / (rounds - 1)))


@dataclass(frozen=True, slots=True)
class Uplink:
    """What devices send, and through which stages.

    With `feedback` a device adds to each update what the stages left out of those before. `whole` names tensors, by
    pattern, "first" or "last" (weight of the net), that no top-k thins; it needs scope "tensor".
    """

    kind: str = "delta"
    scope: str = "update"
    stages: tuple[Mapping[str, Any], ...] = ()
    feedback: bool = False
    whole: tuple[str, ...] = ()

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
class Schedule:
    """How many levels the uplink's stage "levels" has, round by round; see coordinator/learning/schedule.py.

    rule: fixed (as the stage says), ascending (AdaQuantFL) or descending.
    """

    rule: str = "fixed"
    start: int = 2
    least: int = 1
    most: int = 65535
    update_every: int = 1
    rate_aware: bool = False

    def __post_init__(self) -> None:
        if self.rule not in ("fixed", "ascending", "descending"):
            raise ConfigError(f"schedule.rule = {self.rule!r}", remedy="choose fixed, ascending or descending")
        check_range("schedule.least", self.least, 1, 65535)
        check_range("schedule.most", self.most, self.least, 65535)
        check_range("schedule.start", self.start, self.least, self.most)
        check_range("schedule.update_every", self.update_every, 1, 1_000_000)
        if self.rule == "fixed":
            _check_idle("schedule", self, ("start", "rate_aware"), 'with rule = "fixed"', "choose another rule")


@dataclass(frozen=True, slots=True)
class Privacy:
    """Client-level differential privacy of the trainable update; see coordinator/learning/privacy.py.

    clip: length that no device's update exceeds (0: no privacy). noise: standard deviation over clip, of the sum.
    mechanism: gaussian (fresh noise a round) or tree (DP-FTRL). population: devices that could take part, 0 if unknown.
    """

    clip: float = 0.0
    noise: float = 0.0
    mechanism: str = "gaussian"
    delta: float = 1e-5
    population: int = 0

    def __post_init__(self) -> None:
        check_range("privacy.clip", self.clip, 0, 1e9)
        check_range("privacy.noise", self.noise, 0, 1e6)
        check_range("privacy.delta", self.delta, 1e-30, 0.5)
        check_range("privacy.population", self.population, 0, 1 << 40)
        if self.mechanism not in ("gaussian", "tree"):
            raise ConfigError(f"privacy.mechanism = {self.mechanism!r}", remedy='choose "gaussian" or "tree"')
        if not self.clip:
            _check_idle("privacy", self, ("noise", "mechanism", "population"), "without a clip", "set privacy.clip")


@dataclass(frozen=True, slots=True)
class Evaluate:
    """How the global model is measured after a round: as it is, and with its weights at each of these bit-widths."""

    bits: tuple[int, ...] = ()
    grid: str = "tensor"
    range: str = "minmax"
    every: int = 1

    def __post_init__(self) -> None:
        for bits in self.bits:
            check_bits(bits, "evaluate.bits")
        check_range("evaluate.every", self.every, 1, 1_000_000)
        grids, ranges = ("tensor", "channel"), ("minmax", "lsq")
        for name, value, choices in (("grid", self.grid, grids), ("range", self.range, ranges)):
            if value not in choices:
                raise ConfigError(f"evaluate.{name} = {value!r}", remedy=f"choose {' or '.join(choices)}")


def _check_idle(place: str, section: Schedule | Privacy, names: Sequence[str], why: str, remedy: str) -> None:
    """Raises ConfigError for the first of these settings that was changed although it would do nothing."""
    for item in fields(section):
        value = getattr(section, item.name)
        if item.name in names and value != item.default:
            raise ConfigError(f"{place}.{item.name} = {value!r} {why}", remedy=f"{remedy}, or leave {item.name} out")


def _check_coding(place: str, scope: str, stages: tuple[Mapping[str, Any], ...]) -> None:
    if scope not in ("tensor", "update"):
        raise ConfigError(f"{place}.scope = {scope!r}", remedy='choose "tensor" or "update"')
    Chain.of(stages)
