"""Brokers and relays for tests that talk over real sockets, packages that seem to be installed, a person's files."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import ModuleType

import pytest

from coordinator.broker import start_broker
from models.tasks import task
from tests.relay import Relay
from tests.waiting import wait_for
from wire.errors import ConfigError
from wire.links.link import Backoff, Link, parse_link
from wire.links.mqtt import MqttTransport
from wire.transport import Up

FAST = Backoff(base_s=0.02, cap_s=0.1)

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # tests import the runtime themselves

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts its background jobs so, and what they start inherits it: Ctrl-C could not be tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def started(kind, folder, settings=None):
    try:
        return start_broker(kind, folder, settings=settings)
    except ConfigError as error:
        if kind == "mosquitto" and "not installed" in error.message:
            pytest.skip(str(error))
        raise


@pytest.fixture(params=["mosquitto", "iotcore"])
def broker(request, tmp_path):
    with started(request.param, tmp_path / "broker") as running:
        yield running


@pytest.fixture
def mosquitto(tmp_path):
    """Returns a function that starts mosquitto with extra settings."""
    running = []

    def start(**settings):
        running.append(started("mosquitto", tmp_path / f"mosquitto-{len(running)}", settings))
        return running[-1]

    yield start
    for broker in running:
        broker.stop()


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Returns a function that offers objects as the entry points of a group: a module and a dist-info on the path."""

    def offered(group, objects):
        module = ModuleType("offered_for_test")
        vars(module).update({f"thing{at}": value for at, value in enumerate(objects.values())})
        monkeypatch.setitem(sys.modules, module.__name__, module)
        dist = tmp_path / f"offered_{group.replace('.', '_')}-1.dist-info"
        dist.mkdir(exist_ok=True)
        (dist / "METADATA").write_text(f"Metadata-Version: 2.1\nName: offered-{group}\nVersion: 1\n")
        lines = [f"{name} = {module.__name__}:thing{at}" for at, name in enumerate(objects)]
        (dist / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()

    task.cache_clear()
    yield offered
    task.cache_clear()


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    """Leads into a folder of a person's own files, whose names are those of our packages and of others."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("coordinator", "edge_agent", "iotcore", "json", "logging", "models", "runpy", "simulation", "wire"):
        (folder / f"{name}.py").write_text("raise RuntimeError('this file is not ours')\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def relay():
    """Returns a function that puts a relay in front of a port."""
    running = []

    def start(port, **options):
        running.append(Relay(port, **options))
        return running[-1]

    yield start
    for one in running:
        one.close()


@pytest.fixture
def client():
    """Returns a function that connects a transport to a broker, a URL or a link, and waits for `Up`."""
    made = []

    def make(broker, name, *, up=True, **options):
        link = broker if isinstance(broker, Link) else parse_link(broker if isinstance(broker, str) else broker.url)
        transport = MqttTransport(link, name, **{"backoff": FAST, **options})
        made.append(transport)
        if up:
            assert isinstance(wait_for(transport, Up), Up)
        return transport

    yield make
    for transport in made:
        transport.close()
