"""Pictures show the stored results: means over the seeds, and the share that is trained."""

from __future__ import annotations

import pytest

from benchmarks.claims.methods import METHODS
from benchmarks.claims.pictures import freezings, robustness
from benchmarks.claims.store import Store
from tests.benchmarks.made import record


def measured(accuracy, **by_bits):
    bits = {name.removeprefix("at"): value for name, value in by_bits.items()}
    return [{"rounds": 1, "accuracy": accuracy, "accuracy_by_bits": bits}] * 5


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path)
    found.folder.mkdir(exist_ok=True)
    return found


def keep(store, name, seed, **figures):
    store.write(METHODS.trials[name], seed, record(METHODS.trials[name], seed, **figures))


def test_bits_stand_beside_full_precision(store):
    bits = {"at2": 0.3, "at3": 0.5, "at4": 0.6, "at5": 0.7, "at6": 0.75, "at8": 0.8}
    for seed, accuracy in ((1, 0.8), (2, 0.9)):
        keep(store, "qr-kure", seed, evaluated=measured(accuracy, **bits))
    found = robustness(store)
    assert [point[0] for point in found["KURE"]] == [2, 3, 4, 5, 6, 8, 9]
    assert found["KURE"][1] == (3, 50.0, 0.0)
    assert found["KURE"][-1] == pytest.approx((9, 85.0, 7.0710678))
    assert found["FedAvg"] == []


def test_freezings_stand_by_their_share(store):
    keep(store, "fz-leaf-full", 1, evaluated=measured(0.9), params=12_000, params_with_frozen=12_000)
    keep(store, "fz-leaf-largest", 1, evaluated=measured(0.88), params=480, params_with_frozen=12_000)
    keep(store, "fz-leaf-full-tune-0.05", 1, evaluated=measured(0.1), params=100, params_with_frozen=100)
    assert freezings(store) == {
        "LEAF CNN, 12,000 parameters": [(0.04, pytest.approx(88.0), 0.0), (1.0, pytest.approx(90.0), 0.0)],
        "CNN 32-64": [],
    }
