"""Links of 64 kbit/s, up and down, that break on the way: little more than what is needed goes over them."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from coordinator.broker import start_broker
from coordinator.recipe import load_recipe
from tests.end_to_end.fleet import COORDINATOR, Fleet, undisturbed_model
from tests.end_to_end.members import HeldWorker, drive, member, members, set_link
from tests.end_to_end.slow.slow_net import slow_net
from tests.waiting import url_of

FEW_BYTES_UP = 'uplink.stages=[{stage="topk", share=0.001}, {stage="levels", levels=1}]'
BLOB_BYTES = 300_000
CUTS = (20_000, 30_000, 60_000)


def recipe(*settings, goal=1, rounds=1, size=64):
    return load_recipe("echo", [f"devices.goal={goal}", f"rounds={rounds}", f'model="vector-{size}"', *settings])


def published(fleet):
    lines = fleet.ledger() if fleet.run else []
    return {line["round"] for line in lines if line["event"] == "phase" and line["phase"] == "published"}


def logged(fleet, name, pattern):
    return re.findall(pattern, fleet.tail(name, 100_000))


def model_of(fleet):
    return fleet.ledger()[-1]["model"]


@pytest.mark.long
@pytest.mark.parametrize(("kind", "cuts"), [("mosquitto", ()), ("mosquitto", CUTS), ("iotcore", CUTS)])
def test_model_comes_down_a_slow_link_once(kind, cuts, tmp_path, relay):
    """Its first piece holds 256 KiB and takes half a minute; with cuts it never arrives whole, and smaller ones do."""
    wanted = recipe(FEW_BYTES_UP, rounds=2, size=BLOB_BYTES // 4)
    with ExitStack() as stack:
        fleet = stack.enter_context(members(kind, tmp_path, wanted))
        between = relay(fleet.broker.port)
        between.rate_bytes_s = 8_000.0
        set_link(fleet, "dev-0", url_of(between.port))
        agent = stack.enter_context(member(fleet, "dev-0"))
        fleet.start(COORDINATOR)

        def until(so, longest_s=60.0):
            drive(so, lambda: agent.step(0.02), longest_s=longest_s, why=fleet.tails)

        until(lambda: agent.work and agent.work.plan.round == 1)
        before, fetch = between.down_bytes, agent.work.fetch
        for count in cuts:
            links = len(between.connections)
            between.cut_down_after(count)
            until(lambda links=links: len(between.connections) > links)
        until(lambda: fetch.complete, longest_s=120.0)
        assert fetch.piece_bytes == (64 * 1024 >> len(cuts) if cuts else 0)
        until(lambda: agent.standing.settled(fleet.run, 1), longest_s=200.0)  # what was sent twice comes before that
        assert BLOB_BYTES < between.down_bytes - before < 1.5 * BLOB_BYTES
        until(lambda: fleet.over)
    assert model_of(fleet) == undisturbed_model(tmp_path / "undisturbed", wanted)


def test_link_that_never_lasts_for_a_large_piece_carries_the_update_in_small_ones(tmp_path, relay):
    """64 kbit/s, and no connection carries more than 20 kB: a piece of 40 kB would never arrive."""
    wanted = recipe(size=10_000)
    with ExitStack() as stack:
        fleet = stack.enter_context(members("mosquitto", tmp_path, wanted))
        between, worker = relay(fleet.broker.port), HeldWorker(held=True)
        set_link(fleet, "dev-0", url_of(between.port))
        agent = stack.enter_context(member(fleet, "dev-0", worker))
        fleet.start(COORDINATOR)
        drive(lambda: agent.work and agent.work.training, lambda: agent.step(0.02), why=fleet.tails)
        between.rate_bytes_s, worker.held, links = 8_000.0, False, [0]

        def step():
            agent.step(0.02)
            if len(between.connections) > links[0]:
                links[0] = len(between.connections)
                between.cut_up_after(20_000)

        drive(lambda: agent.standing.settled(fleet.run, 0), step, longest_s=100.0, why=fleet.tails)
        assert 3 <= links[0] <= 12
        assert between.up_bytes < 4 * 40_000
        drive(lambda: fleet.over, step, why=fleet.tails)
    assert model_of(fleet) == undisturbed_model(tmp_path / "undisturbed", wanted)


@pytest.mark.long
def test_device_behind_64_kbit_with_cuts_ends_its_rounds(tmp_path):
    """A real network: the cable is pulled twice while the update goes up, for longer than the keep-alive."""
    wanted = recipe(goal=2, rounds=2, size=20_000)
    with ExitStack() as stack:
        net = stack.enter_context(slow_net(64))
        if net is None:
            pytest.skip("a network namespace needs root, ip and tc; the relay stands in for it above")
        port = free_port()
        listeners = {"listener": f"{port} 127.0.0.1\nlistener {port} {net.address}"}
        broker = stack.enter_context(start_broker("mosquitto", tmp_path / "broker", port, settings=listeners))
        fleet = Fleet(tmp_path / "fleet", wanted, broker)
        stack.callback(fleet.stop)
        set_link(fleet, "dev-1", f"mqtt://{net.address}:{port}", keepalive_s=4, chunk_kib=8)
        for name in (COORDINATOR, "dev-0"):
            fleet.start(name)
        run_in(net, fleet, "dev-1")
        drive(lambda: outbox_of(fleet, "dev-1"), longest_s=120.0, why=fleet.tails)
        before = net.up_bytes
        for sent in (20_000, 20_000):
            start = net.up_bytes
            drive(lambda start=start, sent=sent: net.up_bytes > start + sent, longest_s=120.0, why=fleet.tails)
            downs = len(logged(fleet, "dev-1", "event=link-down"))
            net.pull()
            drive(lambda n=downs: len(logged(fleet, "dev-1", "event=link-down")) > n, longest_s=60.0, why=fleet.tails)
            net.plug()
        drive(lambda: 0 in published(fleet), longest_s=120.0, why=fleet.tails)
        assert net.up_bytes - before < 1.5 * 80_000
        fleet.finish(300.0)
    assert model_of(fleet) == undisturbed_model(tmp_path / "undisturbed", wanted)


def outbox_of(fleet, device):
    """Tells whether an update lies in the outbox."""
    return list((fleet.folder / device / "outbox").glob("*.update"))


def run_in(net, fleet, device):
    words = ["ip", "netns", "exec", net.name, sys.executable, "-m", "edge_agent", "run"]
    with (fleet.logs / f"{device}.log").open("ab") as log:
        fleet.running[device] = subprocess.Popen(
            [*words, "--config", str(fleet.folder / f"{device}.toml")],
            cwd=Path(__file__).parents[3], stdout=log, stderr=log,
        )  # fmt: skip


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]
