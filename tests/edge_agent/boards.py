"""A plan, a configuration and readings to start from, each with changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge_agent.config import AgentConfig, DataConfig
from edge_agent.gate import Readings
from models.archs import spec_of
from models.init import initial
from wire.messages.blob import digest_bytes
from wire.messages.plan import RoundPlan
from wire.messages.train import TrainSettings
from wire.params import params_digest
from wire.spec import ModelSpec, canonical_json, spec_digest

__all__ = ["IDLE", "config", "echo_spec", "keep", "plan", "spec_bytes"]

IDLE = Readings(
    free_memory_bytes=1 << 30, free_disk_bytes=1 << 40, temperature_c=40.0, battery_percent=None, on_mains=None
)


def echo_spec(size: int = 10, seed: int = 1) -> ModelSpec:
    return spec_of(f"vector-{size}", (1,), 1, seed)


def spec_bytes(spec: ModelSpec) -> bytes:
    return canonical_json(spec.to_json())


def plan(spec: ModelSpec | None = None, **changes) -> RoundPlan:
    """Returns the plan of a first round: its base is the model that the seed gives."""
    spec = spec or echo_spec()
    first = params_digest(initial(spec))
    made = RoundPlan(
        run="run-1",
        round=0,
        seed=1,
        base=first,
        initial=first,
        spec=spec_digest(spec),
        spec_bytes=len(spec_bytes(spec)),
        blobs=(),
        train=TrainSettings("echo"),
        deadline_s=60.0,
    )
    return replace(made, **changes)


def config(folder: Path, **changes) -> AgentConfig:
    made = AgentConfig(
        device="dev-1", fleet="test", broker="mqtt://127.0.0.1:1", state_dir=folder, data=DataConfig("echo")
    )
    return replace(made, **changes)


def keep(store: Path, data: bytes) -> str:
    """Puts bytes into a store under their digest, which is returned."""
    store.mkdir(parents=True, exist_ok=True)
    digest = digest_bytes(data)
    (store / digest).write_bytes(data)
    return digest
