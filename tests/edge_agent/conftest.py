"""An agent whose coordinator is played by the test."""

from __future__ import annotations

import pytest

from edge_agent.agent import Agent
from tests.edge_agent.boards import IDLE, config, echo_spec, keep, spec_bytes
from tests.edge_agent.tables import TOPICS, Table
from tests.inline_worker import InlineWorker
from wire.transport import Hub, MemoryTransport


@pytest.fixture
def table(tmp_path):
    """Returns a function that seats an agent whose store holds the spec."""

    def seat(worker=None, board=IDLE, hub=None, **changes):
        hub = hub or Hub()
        other = MemoryTransport(hub)
        other.subscribe(*(TOPICS.device("+", leaf) for leaf in ("state", "info", "ask", "up")))
        made = config(tmp_path / "state", **changes)
        keep(made.state_dir / "store", spec_bytes(echo_spec()))
        agent = Agent(
            made, MemoryTransport(hub), worker or InlineWorker(), lambda: one.clock_s, lambda: 0.5, lambda: board
        )
        one = Table(agent, hub, other)
        one.turn()
        return one

    return seat
