from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from edge_agent.worker import KILLED
from models.dataset import Dataset
from simulation.child import Shares
from simulation.executor import InlineExecutor, LocalExecutor
from simulation.jobs import Jobs, JobWorker
from simulation.run import simulate
from tests.simulation.orders import echoes, order


@pytest.fixture
def local():
    executor = LocalExecutor(2)
    yield executor
    executor.stop()


def ended(executor, count):
    found, ends_s = [], time.monotonic() + 60
    while len(found) < count and time.monotonic() < ends_s:
        found += executor.poll()
    return found


@pytest.mark.parametrize("over", [1.0, 1.5])
def test_two_workers_give_the_model_of_one_process(tmp_path, over):
    settings = (f"devices.over={over}", 'uplink.stages=[{stage="topk",share=0.1}]', "uplink.feedback=true")
    orders = [echoes(tmp_path / str(count), *settings, devices=7, workers=count) for count in (0, 2)]
    one, two = (simulate(each) for each in orders)
    assert two["model_digest"] == one["model_digest"]
    assert two["updates"] == one["updates"] == 12


def test_workers_import_nothing_from_where_a_person_happens_to_be(tmp_path, own_files):
    assert simulate(echoes(tmp_path / "run", workers=1))["rounds"] == 3


@pytest.mark.long  # three processes load torch
def test_two_workers_train_the_model_of_one_process(tmp_path):
    one, two = (simulate(order(tmp_path / str(count), workers=count)) for count in (0, 2))
    assert two["model_digest"] == one["model_digest"]
    assert two["accuracy_by_round"] == one["accuracy_by_round"]


def test_a_killed_worker_is_replaced_and_its_device_trained_again(tmp_path):
    killed = []

    def watch(world):
        busy = [slot for slot in world.jobs.executor.slots if slot.token]
        if world.federation.state.number == 1 and busy and not killed:
            killed.append(busy[0].errand.child.process.pid)
            os.kill(killed[0], signal.SIGKILL)

    ordered = [echoes(tmp_path / str(count), 'model="vector-200000"', workers=count) for count in (0, 1)]
    undisturbed, found = simulate(ordered[0]), simulate(ordered[1], watch)
    assert killed
    assert found["model_digest"] == undisturbed["model_digest"]
    assert "job-failed" in (tmp_path / "1" / "events.log").read_text()


def test_every_job_gets_its_own_answer(local):
    tokens = [local.start({"device": str(at)}, b"") for at in range(5)]
    found = ended(local, 5)
    assert sorted(token for token, _ in found) == tokens
    assert {result.code for _, result in found} == {"E-TRAIN"}  # such a header says nothing


def test_a_job_that_is_dropped_is_never_answered(local):
    first, second, third = (local.start({"device": str(at)}, b"") for at in range(3))
    local.drop(first)  # it runs
    local.drop(third)  # it waits, or has just begun
    assert [token for token, _ in ended(local, 1)] == [second]
    assert not local.waiting
    assert ended_at_rest(local)


def ended_at_rest(executor):
    return not executor.wake and not executor.poll()


def test_a_dead_worker_is_told_by_its_code(local):
    token = local.start({"device": "a"}, b"")
    child = local.slots[0].errand.child
    os.kill(child.process.pid, signal.SIGKILL)
    ((found, result),) = ended(local, 1)
    assert (found, result.code) == (token, KILLED)
    assert "SIGKILL" in result.reason
    again = local.start({"device": "a"}, b"")
    assert [(token, result.code) for token, result in ended(local, 1)] == [(again, "E-TRAIN")]


def test_results_are_known_together():
    jobs = Jobs(InlineExecutor())
    workers = [JobWorker(jobs) for _ in range(3)]
    for worker in workers:
        worker.start({}, b"")
    seen = []
    assert not any(worker.ready for worker in workers)
    jobs.gather(lambda: seen.append(len(jobs.running)))
    assert seen == [2, 1, 0]
    workers[1].stop()
    assert [worker.ready for worker in workers] == [True, False, True]
    assert workers[0].poll(0.0).code == "E-TRAIN"
    assert workers[0].poll(0.0) is None


def test_examples_are_those_that_a_device_reads_itself():
    from edge_agent.config import DataConfig
    from edge_agent.training.local_data import local_data
    from models.archs import spec_of

    spec = spec_of("mlp", (1, 8, 8), 10, 1)
    configs = [DataConfig("digits", None, "dirichlet:0.5", 5, at, 7, 200) for at in range(5)]
    shares = Shares(most_bytes=1)
    for config in [*configs, configs[0]]:
        own, found = local_data(config, spec), shares.examples(config, spec)
        assert (own.x == found.x).all() and (own.y == found.y).all()
        assert len(shares.newest) == 1
    assert len(shares.parts) == 1


def test_a_simulation_reads_the_data_of_a_package_once_for_their_shape_and_once_to_train_on(tmp_path, offer):
    read, y = [], np.arange(40) % 4
    whole = Dataset(np.eye(4, dtype=np.float32)[y], y)
    offer("bitfleet.data", {"corners": lambda part: read.append(part) or whole})
    found = simulate(order(tmp_path, 'task="corners"', "rounds=2", "evaluate.every=2", devices=4))
    assert found["updates"] == 8
    assert sorted(read) == ["test", "train", "train"]


def test_a_device_without_a_split_reads_all():
    from edge_agent.config import DataConfig
    from models.archs import spec_of

    assert len(Shares().examples(DataConfig("digits"), spec_of("mlp", (1, 8, 8), 10, 1))) == 1437


def test_the_base_of_a_round_is_made_once_and_cannot_be_written():
    shares, made = Shares(), []

    def make():
        made.append(1)
        return {"w": np.full(3, float(len(made)), np.float32)}

    first = shares.base(("spec", "one"), make)
    assert shares.base(("spec", "one"), make) is first
    with pytest.raises(ValueError, match="read-only"):
        first["w"] += 1
    assert shares.base(("spec", "two"), make)["w"][0] == 2
    assert shares.base(("other", "two"), make)["w"][0] == 3
    assert len(made) == 3


def test_devices_of_one_process_and_devices_of_their_own_start_from_the_same(tmp_path, monkeypatch):
    settings = ("rounds=3", 'downlink.stages=[{stage="levels",levels=255}]')
    together = simulate(order(tmp_path / "together", *settings, devices=4))
    monkeypatch.setattr(Shares, "base", lambda self, name, make: make())
    alone = simulate(order(tmp_path / "alone", *settings, devices=4))
    assert together["model_digest"] == alone["model_digest"]
    assert together["updates"] == alone["updates"] == 12
