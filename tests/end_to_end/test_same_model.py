"""The same seed and the same devices give the same model: twice, and over every transport."""

from __future__ import annotations

import pytest

from coordinator.recipe import load_recipe
from tests.conftest import started
from tests.end_to_end.fleet import fleet, undisturbed_model

BROKERS = ["mosquitto", "iotcore"]
WAIT_S = 120.0


def recipe(name, *settings):
    return load_recipe(name, ["rounds=3", "devices.goal=2", *settings])


def model_over(kind, folder, wanted):
    started(kind, folder / "probe").stop()
    with fleet(kind, folder / kind, wanted) as running:
        running.finish(WAIT_S)
        return running.ledger()[-1]["model"]


@pytest.mark.parametrize("name", ["fedavg", "fedavg-4bit"])
def test_same_model_twice_and_over_every_transport(name, tmp_path):
    wanted = recipe(name)
    models = {run: undisturbed_model(tmp_path / run, wanted) for run in ("memory", "memory again")}
    models |= {kind: model_over(kind, tmp_path, wanted) for kind in BROKERS}
    assert len(set(models.values())) == 1, models


def test_another_seed_gives_another_model(tmp_path):
    one, other = (undisturbed_model(tmp_path / str(seed), recipe("fedavg", f"seed={seed}")) for seed in (1, 2))
    assert one != other
