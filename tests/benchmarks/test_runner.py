"""Trials that are stored are not run again; those that are not, or were begun with other settings, are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.claims.runner import pieces_of, run_pieces, simulated
from benchmarks.claims.series import run_figures
from benchmarks.claims.store import Store
from benchmarks.claims.trial import Trial
from tests.benchmarks.made import OTHER, TRIAL, record


class Simulator:
    """Notes what it is asked for; fails at the piece in `fails`."""

    def __init__(self, fails: str = "") -> None:
        self.asked: list[str] = []
        self.fails, self.found = fails, {}

    def __call__(self, trial, seed, folder):
        name = f"{trial.name}.{seed}"
        self.asked.append(name)
        self.found[name] = sorted(path.name for path in folder.iterdir())
        (folder / "half-done").touch()
        if name == self.fails:
            raise KeyboardInterrupt
        return {"accuracy": 0.5}


@pytest.fixture
def run(tmp_path):
    store = Store(tmp_path / "store")

    def go(simulator, trials=(TRIAL, OTHER), seeds=2, **more):
        return run_pieces(pieces_of(trials, seeds), store, tmp_path / "work", simulate=simulator, say=str, **more)

    go.store, go.work = store, tmp_path / "work"
    return go


def test_first_seed_first_and_nothing_twice(run):
    first, second = Simulator(), Simulator()
    assert run(first) == []
    run(second, seeds=3)
    assert first.asked == ["made.1", "other.1", "made.2", "other.2"]
    assert second.asked == ["made.3", "other.3"]
    stored = run.store.read(TRIAL, 1)
    assert stored["figures"] == {"accuracy": 0.5}
    assert {"commit", "date"} <= set(stored["code"])
    assert {"cpu", "cores", "torch"} <= set(stored["machine"])
    assert not list(run.work.iterdir())


def test_goes_on_after_an_interruption(run):
    broken, after = Simulator("other.1"), Simulator()
    with pytest.raises(KeyboardInterrupt):
        run(broken)
    run(after)
    assert after.asked == ["other.1", "made.2", "other.2"]
    assert after.found["other.1"] == ["half-done", "settings"]


def test_what_was_begun_with_other_settings_is_dropped(run):
    with pytest.raises(KeyboardInterrupt):
        run(Simulator("made.1"))
    after = Simulator()
    run(after, trials=(replace(TRIAL, settings=("rounds=4",)),), seeds=1)
    assert after.found == {"made.1": ["settings"]}


def test_stale_and_fresh_run_again(run):
    run.store.write(TRIAL, 1, record(replace(TRIAL, settings=("rounds=9",)), 1))
    run.store.write(OTHER, 1, record(OTHER, 1))
    stale, fresh = Simulator(), Simulator()
    run(stale, seeds=1)
    run(fresh, seeds=1, fresh=True)
    assert stale.asked == ["made.1"]
    assert fresh.asked == ["made.1", "other.1"]


def test_a_locked_trial_is_left_to_its_process(run):
    simulator = Simulator()
    with run.store.lock(TRIAL, 1):
        assert run(simulator, seeds=1) == ["made.1"]
    assert simulator.asked == ["other.1"]


def test_a_simulated_run_gives_its_figures(tmp_path):
    trial = Trial("tiny", "adaquantfl", ("rounds=2", "devices.goal=2", "split.examples=64", "evaluate.bits=[4]"), 3)
    figures = simulated(trial, 1, tmp_path)
    assert figures["status"] == "done"
    assert [one["rounds"] for one in figures["evaluated"]] == [1, 2]
    assert set(figures["evaluated"][-1]) == {"rounds", "accuracy", "loss", "accuracy_by_bits"}
    assert figures["params"] == figures["params_with_frozen"] == 4810
    assert figures["levels_by_round"][0] == 2
    assert figures["kurtosis"] == pytest.approx(1.8, abs=0.3)
    assert set(figures["nonzero"]) == {"fc1.weight", "out.weight"}
    for name in ("loss_by_round", "up_by_round", "down_by_round", "update_bytes_by_round"):
        assert len(figures[name]) == 2
        assert min(figures[name]) > 0
    assert all(up > sent for up, sent in zip(figures["up_by_round"], figures["update_bytes_by_round"], strict=True))


def test_where_the_largest_weights_lie_is_compared_from_stop_to_stop(tmp_path):
    settings = ("rounds=4", "devices.goal=2", "split.examples=64", "train.rate=0.5")
    kept = simulated(Trial("tiny", "fedavg", settings, 3, stops=1), 1, tmp_path)["positions_kept"]
    assert list(kept) == ["1-2", "2-3", "3-4"]
    assert set(kept["1-2"]) == {"fc1.weight", "out.weight"}
    assert 0.05 < min(kept["1-2"].values()) < 1
    assert "positions_kept" not in simulated(Trial("tiny", "fedavg", settings, 3), 1, tmp_path / "without")


def test_bytes_of_an_abandoned_round_are_not_lost():
    recipe = {"name": "made", "task": "digits"}
    lines = [
        {"event": "run", "run": "r", "round": -1, "status": "open", "simulated": True, "recipe": recipe, "at": 0.0},
        {"event": "traffic", "round": 0, "up": {"a": 5}, "down": {}},
        {"event": "phase", "round": 0, "phase": "abandoned"},
        {"event": "accepted", "round": 1, "into": 1, "device": "a", "bytes": 7, "examples": 3, "metrics": {}},
        {"event": "traffic", "round": 1, "up": {"a": 9, "b": 1}, "down": {"a": 2}},
        {"event": "phase", "round": 1, "phase": "published", "model": "m"},
        {"event": "traffic", "round": 1, "up": {"b": 1}, "down": {}, "at": 1.0},
    ]
    figures = run_figures(lines)
    assert figures["up_by_round"] == [16]
    assert figures["down_by_round"] == [2]
    assert figures["update_bytes_by_round"] == [7]
    assert figures["loss_by_round"] == [None]
