"""FedPT's claim 1 where the bytes really pass: the LEAF CNN whole and with its largest tensor frozen, over a broker."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pytest

from coordinator.home import open_home
from coordinator.recipe import load_recipe
from edge_agent.agent import Agent
from edge_agent.config import AgentConfig, DataConfig
from models.archs import spec_of
from tests.conftest import started
from tests.inline_worker import InlineWorker
from tests.waiting import url_of
from wire.links.link import parse_link
from wire.links.mqtt import MqttTransport
from wire.messages.reports import DeviceState, encode_state
from wire.topics import Topics
from wire.transport import Will

ROUNDS = 3
QUIET_S = 0.5
LONGEST_S = 300.0


@dataclass
class Unmeasured:
    """An evaluator without a test set: the model's accuracy is not what is asked here."""

    wake: tuple[int, ...] = ()

    def start(self, question):
        pass

    def poll(self):
        return {"error": "there is no test set here"}

    def stop(self):
        pass


def agent_of(folder, url, key):
    """Returns the agent of a device with eight pictures of noise."""
    pictures = folder / "pictures"
    pictures.mkdir()
    random = np.random.default_rng(1)
    np.savez(pictures / "all.npz", x=random.random((8, 1, 28, 28), np.float32), y=np.arange(8))
    data = DataConfig("fashion", pictures)
    config = AgentConfig("dev-1", "test", url, folder / "device", data=data, coordinator_key=key)
    will = Will(Topics("test").device("dev-1", "state"), encode_state(DeviceState("lost", 1)))
    return Agent(config, MqttTransport(parse_link(url), "dev-1", will), InlineWorker(), time.monotonic, lambda: 0.5)


def passed(folder, relay, *settings):
    """Returns the bytes up in all rounds and down in all but the first, whose model comes from the seed."""
    words = ["devices.goal=1", f"rounds={ROUNDS}", "train.batch=8", *settings]
    recipe = load_recipe("fedpt", words)
    with started("mosquitto", folder / "broker") as broker, open_home(folder / "home") as home:
        between = relay(broker.port)
        agent = agent_of(folder, url_of(between.port), home.public_key)
        server = MqttTransport(parse_link(broker.url), "coordinator")
        federation = home.federation(home.new_run(recipe), "test", server, Unmeasured(), time.monotonic)
        ends_s = time.monotonic() + LONGEST_S
        try:
            quiet(agent, between)
            up, down = between.up_bytes, 0
            while not federation.over:
                federation.step(0.01)
                agent.step(0.01)
                down = down or (between.down_bytes if federation.state.number else 0)
                assert time.monotonic() < ends_s, federation.state.row
            quiet(agent, between)
            return between.up_bytes - up, between.down_bytes - down
        finally:
            agent.stop()
            server.close()


def quiet(agent, between):
    """Lets the agent act until it is connected and nothing has passed for a moment."""
    since_s, seen = time.monotonic(), -1
    while time.monotonic() - since_s < QUIET_S or not between.up_bytes:
        agent.step(0.01)
        if seen != (seen := between.up_bytes + between.down_bytes):
            since_s = time.monotonic()


def test_bytes_at_the_socket_fall_as_the_parameters_that_are_trained(tmp_path, relay):
    """Everything counts that passes after the device has connected: plans, questions, states, receipts, packets."""
    whole, part = (spec_of("leaf", (1, 28, 28), 10, 1, freeze).count for freeze in ((), ("largest",)))
    assert whole / part == pytest.approx(28.8, abs=0.05)
    found = []
    for name, freeze in (("whole", "freeze=[]"), ("part", 'freeze=["largest"]')):
        (tmp_path / name).mkdir()
        found.append(passed(tmp_path / name, relay, freeze))
    assert found[1][0] > ROUNDS * 4 * part
    assert found[1][1] > (ROUNDS - 1) * 4 * part
    for full, frozen in zip(*found, strict=True):
        assert full / frozen == pytest.approx(whole / part, rel=0.01)
