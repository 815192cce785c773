"""On a cluster of two nodes on this machine's loopback. Slow, so with the long tests; without Ray there is nothing."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys

import pytest

from simulation.run import simulate
from tests.simulation.orders import echoes, order
from wire.errors import ConfigError, TransportError


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"bitfleet\[ray\]"):
        simulate(echoes(tmp_path, ray="auto"))


@pytest.fixture(scope="module")
def cluster():
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # everything on loopback, as Ray does there
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80_000_000, "node_ip_address": "127.0.0.1"}
    made = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    made.add_node(**node)
    yield made
    made.shutdown()
    patch.undo()


SPARSE = ('uplink.stages=[{stage="topk",share=0.1}]', "uplink.feedback=true")
QUPED = ('task="digits"', "devices.goal=2", "split.examples=60", "personal.mix=[]", "split.rule=iid")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Ray's own
@pytest.mark.parametrize(("recipe", "settings"), [("echo", SPARSE), ("fedavg-4bit", ()), ("quped", QUPED)])
def test_two_nodes_give_the_model_of_one_process(tmp_path, cluster, recipe, settings):
    make = echoes if recipe == "echo" else lambda *args, **words: order(*args, recipe=recipe, **words)
    here, there = (simulate(make(tmp_path / (ray[:4] or "none"), *settings, ray=ray)) for ray in ("", cluster.address))
    assert there["model_digest"] == here["model_digest"]
    assert there["updates"] == here["updates"]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_the_devices_of_a_lost_worker_are_run_again(tmp_path, cluster):
    here = simulate(echoes(tmp_path / "here", 'model="vector-400000"'))
    killed = []

    def watch(world):
        if world.federation.state.number == 1 and not killed and world.jobs.running:
            killed.extend(pid for pid in _workers() if _kill(pid))

    there = simulate(echoes(tmp_path / "there", 'model="vector-400000"', ray=cluster.address), watch)
    assert killed
    assert there["model_digest"] == here["model_digest"]


def _workers() -> list[int]:
    """Returns the worker processes of our own cluster that have run a bundle."""
    import psutil

    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or [""]
        if words[0].startswith("ray::run_bundle") or words[0].startswith("ray::IDLE"):
            found.append(process.info["pid"])
    return found


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_an_address_where_nobody_is_is_told(tmp_path, cluster):
    with pytest.raises(TransportError, match=r"--ray 127.0.0.1:1: .*refused.*ray start"):
        simulate(echoes(tmp_path, ray="127.0.0.1:1"))
