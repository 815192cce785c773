"""Many devices in one process, each with its own link to a real broker: `python -m benchmarks.fleet.swarm --help`.

They are the agent's own code over the real protocol: they fetch the model, and their updates differ. Only the training
child is missing (jobs run in this process, one after the other), so that 200 of them fit on one machine.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path
from random import SystemRandom
from types import FrameType

from edge_agent.agent import Agent
from edge_agent.config import AgentConfig, DataConfig
from tests.inline_worker import InlineWorker
from wire.links.link import parse_link
from wire.links.mqtt import MqttTransport
from wire.messages.reports import DeviceState, encode_state
from wire.topics import Topics
from wire.transport import Will

__all__ = ["main"]

_NOTHING_TO_DO_S = 0.005


def main() -> int:
    """Keeps devices FIRST to FIRST + COUNT going until the process is told to end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet.swarm")
    parser.add_argument("--broker", required=True)
    parser.add_argument("--fleet", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--key", default="")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10)
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    agents = [_agent(asked, at) for at in range(asked.first, asked.first + asked.count)]
    try:
        while True:
            if not sum(agent.step(0.0) for agent in agents):
                time.sleep(_NOTHING_TO_DO_S)
    except KeyboardInterrupt:
        return 0  # no goodbyes: the processes beside this one end too


def _agent(asked: argparse.Namespace, at: int) -> Agent:
    device = f"device-{at:03d}"
    place = asked.folder / device
    config = AgentConfig(device, asked.fleet, asked.broker, place, DataConfig("echo"), coordinator_key=asked.key)
    will = Will(Topics(asked.fleet).device(device, "state"), encode_state(DeviceState("lost", 1)))
    transport = MqttTransport(parse_link(asked.broker), client_id=device, will=will)
    return Agent(config, transport, InlineWorker(), time.monotonic, SystemRandom().random)


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
