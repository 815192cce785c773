"""A whole federation in one process, over a broker in memory: for speed, not for proof."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator.federation import Federation
from coordinator.home import Home
from coordinator.learning.evaluator import Question, evaluate
from coordinator.recipe import Recipe
from coordinator.recipes.personal import own_personal
from edge_agent.agent import Agent
from edge_agent.config import AgentConfig, DataConfig
from tests.inline_worker import InlineWorker
from wire.messages.reports import DeviceState, encode_state
from wire.topics import Topics
from wire.transport import Hub, MemoryTransport, Will


@dataclass
class InlineEvaluator:
    result: dict[str, Any] | None = None
    wake: tuple[int, ...] = ()

    def start(self, question: Question) -> None:
        self.result = evaluate(question)

    def poll(self) -> dict[str, Any] | None:
        result, self.result = self.result, None
        return result

    def stop(self) -> None:
        self.result = None


@dataclass
class MemoryFleet:
    """The coordinator and its agents: as many as a round needs, or `devices`."""

    home: Home
    run: str
    folder: Path
    recipe: Recipe
    hub: Hub = field(default_factory=Hub)
    agents: list[Agent] = field(default_factory=list)
    federation: Federation = field(init=False)
    clock_s: float = 0.0
    name: str = "dev-{at}"
    devices: int = 0

    def __post_init__(self) -> None:
        self.federation = self.coordinator()
        self.devices = self.devices or self.recipe.devices.goal
        for at in range(self.devices):
            self.agents.append(self.agent(at))

    def coordinator(self) -> Federation:
        return self.home.federation(
            self.run, "test", MemoryTransport(self.hub), InlineEvaluator(), lambda: self.clock_s
        )

    def agent(self, at: int) -> Agent:
        split = self.recipe.split
        parts = max(self.devices, at + 1)  # one that comes later has a part too
        config = AgentConfig(
            device=self.name.format(at=at),
            fleet="test",
            broker="memory",
            state_dir=self.folder / self.name.format(at=at),
            data=DataConfig(self.recipe.task, None, self.recipe.split_rule, parts, at, split.seed, split.examples),
            personal=own_personal(self.recipe.personal, at),
            coordinator_key=self.home.public_key,
        )
        will = Will(Topics("test").device(config.device, "state"), encode_state(DeviceState("lost", 1)))
        transport = MemoryTransport(self.hub, will=will)
        return Agent(config, transport, InlineWorker(), lambda: self.clock_s, lambda: 0.5)

    def turn(self) -> bool:
        """Lets everybody act once; time moves only when nobody had anything to do."""
        busy = any([self.federation.step(0.0), *(agent.step(0.0) for agent in self.agents)])
        self.clock_s += 0.0 if busy else 0.05
        return busy

    def finish(self, longest_s: float = 60.0) -> str:
        ends_s = time.monotonic() + longest_s
        while not self.federation.over:
            self.turn()
            if time.monotonic() > ends_s:
                raise TimeoutError(f"round {self.federation.state.row}")
        return self.federation.state.planner.model_digest
