"""The agent's configuration: one TOML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any

from models.personal.settings import Personal
from wire.errors import ConfigError
from wire.messages.fields import DEVICE_ID
from wire.messages.manifest import PROFILES
from wire.settings import check_range, read_toml, settings_from

__all__ = ["AgentConfig", "DataConfig", "Limits", "LinkConfig", "ModelConfig", "TrainConfig", "load_config"]

_KEY = re.compile(r"([0-9a-f]{64})?")
_TAKEN = ("coordinator", "dashboard")  # their names at the broker: see wire/topics.py


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where the device's own examples are: a folder of .npz or CSV files, or its share of a known task's data."""

    task: str
    folder: Path | None = None
    split: str = ""
    parts: int = 1
    part: int = 0
    seed: int = 0
    examples: int = 0
    held_out: float = 0.0

    def __post_init__(self) -> None:
        if not _is_split(self.split):
            raise ConfigError(f"data.split = {self.split!r}", remedy="write iid, dirichlet:0.5, classes:2 or subject")
        check_range("data.parts", self.parts, 1, 1_000_000)
        check_range("data.part", self.part, 0, self.parts - 1)
        check_range("data.seed", self.seed, 0, (1 << 63) - 1)
        check_range("data.examples", self.examples, 0, 1 << 31)
        check_range("data.held_out", self.held_out, 0, 0.9)

    def to_json(self) -> dict[str, Any]:
        """Returns the settings as plain JSON values, for a child process."""
        table = {item.name: getattr(self, item.name) for item in fields(self)}
        return table | {"folder": str(self.folder.absolute()) if self.folder else ""}

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> DataConfig:
        """Returns the settings that `to_json` gave."""
        return cls(**{**table, "folder": Path(table["folder"]) if table["folder"] else None})


@dataclass(frozen=True, slots=True)
class Limits:
    """When the device declines to train. A limit whose sensor is not there is not checked."""

    min_free_memory_mb: float = 200.0
    min_free_disk_mb: float = 64.0
    max_temperature_c: float = 80.0
    min_battery_percent: float = 30.0
    mains_only: bool = False

    def __post_init__(self) -> None:
        check_range("limits.min_free_memory_mb", self.min_free_memory_mb, 0, 1e15)
        check_range("limits.min_free_disk_mb", self.min_free_disk_mb, 0, 1e15)
        check_range("limits.max_temperature_c", self.max_temperature_c, 0, 1000)
        check_range("limits.min_battery_percent", self.min_battery_percent, 0, 100)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How the training child runs. With linger_s = 0 it ends with the round."""

    threads: int = 1
    linger_s: float = 60.0
    nice: int = 10
    attempts: int = 3
    max_batch: int = 1024

    def __post_init__(self) -> None:
        check_range("train.threads", self.threads, 1, 1024)
        check_range("train.linger_s", self.linger_s, 0, 1e9)
        check_range("train.nice", self.nice, 0, 19)
        check_range("train.attempts", self.attempts, 1, 1_000_000)
        check_range("train.max_batch", self.max_batch, 1, 1 << 31)


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """How the agent reaches the broker."""

    keepalive_s: int = 60
    chunk_kib: int = 256
    username: str = ""
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def __post_init__(self) -> None:
        check_range("link.keepalive_s", self.keepalive_s, 1, 65535)
        check_range("link.chunk_kib", self.chunk_kib, 2, 1 << 16)


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which variant of a model this device takes, and how it tries one. A limit of 0 is none; no profiles are all."""

    max_latency_ms: float = 0.0
    max_bytes: int = 0
    max_mj: float = 0.0
    min_accuracy: float = 0.0
    profiles: tuple[str, ...] = ()
    max_size_mb: float = 64.0
    health_s: float = 30.0
    probe_s: float = 120.0

    def __post_init__(self) -> None:
        check_range("model.min_accuracy", self.min_accuracy, 0, 1)
        check_range("model.health_s", self.health_s, 0, 1e6)
        check_range("model.probe_s", self.probe_s, 1, 3600)
        for name in ("max_latency_ms", "max_bytes", "max_mj", "max_size_mb"):
            check_range(f"model.{name}", getattr(self, name), 0, 1e15)
        if odd := set(self.profiles) - set(PROFILES):
            raise ConfigError(f"model.profiles = {sorted(odd)[0]!r}", remedy=f"choose of {', '.join(PROFILES)}")


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything. `coordinator_key` is the public key that plans, receipts and offers must be signed with.

    `model_keys` are the public keys whose models this device takes; without one it takes none.
    `personal` are this device's own settings of its personal model, where a plan asks for one. With `durable` = false
    files are not forced to the disk: for simulated devices, which a power cut ends together with their coordinator.
    """

    device: str
    fleet: str
    broker: str
    state_dir: Path
    data: DataConfig
    coordinator_key: str = ""
    model_keys: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    train: TrainConfig = field(default_factory=TrainConfig)
    link: LinkConfig = field(default_factory=LinkConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    personal: Mapping[str, Any] = field(default_factory=dict)
    durable: bool = True

    def __post_init__(self) -> None:
        for name, value in (("device", self.device), ("fleet", self.fleet)):
            if not DEVICE_ID.fullmatch(value):
                raise ConfigError(f"{name} = {value!r}", remedy="use 1 to 32 of a-z, 0-9 and hyphen")
        if self.device in _TAKEN:
            raise ConfigError(f"device = {self.device!r} is not a device's name", remedy="choose another")
        settings_from(Personal, self.personal, "[personal]")
        if not _KEY.fullmatch(self.coordinator_key):
            raise ConfigError(
                f"coordinator_key = {self.coordinator_key!r}",
                remedy="give 64 hex digits: `bitfleet keys` prints them; or leave it out",
            )
        for key in self.model_keys:
            if not key or not _KEY.fullmatch(key):
                raise ConfigError(f"model_keys holds {key!r}", remedy="give 64 hex digits: `bitfleet keys` prints them")


def load_config(path: Path) -> AgentConfig:
    """Returns the configuration in a file; relative paths in it count from where the agent was started."""
    from wire.links.link import parse_link  # noqa: PLC0415  a training child needs no TLS

    config = settings_from(AgentConfig, read_toml(path), str(path))
    parse_link(config.broker)
    return config


def _is_split(rule: str) -> bool:
    """Tells whether a rule is one of models/splits.py, which loads NumPy."""
    name, _, text = rule.partition(":")
    if name not in ("dirichlet", "classes"):
        return rule in ("", "iid", "subject")
    try:
        return 0 < (float(text) if name == "dirichlet" else int(text)) < inf
    except ValueError:
        return False
