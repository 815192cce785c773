"""A run that is over, with everything a report tells of: training, evaluation, a refusal, traffic."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator.front.report import write_report
from coordinator.home import open_home
from coordinator.recipe import load_recipe
from tests.memory_fleet import MemoryFleet
from wire.transport import MemoryTransport


@dataclass(frozen=True)
class Finished:
    """A coordinator's folder and the run in it."""

    home: Path
    run: str
    model_digest: str

    @property
    def folder(self) -> Path:
        return self.home / "runs" / self.run


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    settings = ["rounds=2", "devices.goal=2", 'model="mlp-8"', "train.epochs=1", "split.rule=dirichlet:1"]
    recipe = load_recipe("fedavg", settings)
    with open_home(folder / "home") as home:
        run = home.new_run(recipe)
        fleet = MemoryFleet(home, run, folder, recipe)
        while not fleet.federation.state.collecting:
            fleet.turn()
        MemoryTransport(fleet.hub).publish("fl/1/test/d/stranger/up", b"this is no piece of an update, only words" * 2)
        digest = fleet.finish()
        write_report(home.database, run, home.run_folder(run), fleet.federation.state.planner)
    return Finished(folder / "home", run, digest)


@pytest.fixture(autouse=True)
def _own_signals():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)
