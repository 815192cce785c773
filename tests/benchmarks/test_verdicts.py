"""What made-up trials amount to, and that every claim can be judged from trials that there are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.claims.claim import at_least, at_most, verdict
from benchmarks.claims.methods import METHODS, TOGETHER
from benchmarks.claims.readings import (
    bytes_to_accuracy,
    bytes_to_loss,
    personal,
    plateau,
    ratio,
    spent,
)
from benchmarks.claims.session import chosen, verdicts
from benchmarks.claims.store import Store
from benchmarks.claims.trial import recipe_of
from tests.benchmarks.made import CLAIM, OTHER, TRIAL, record


def seeds(*gains):
    return [{"made": {"accuracy": 50 + gain}, "other": {"accuracy": 50}} for gain in gains]


@pytest.mark.parametrize(
    ("gains", "state", "ok"),
    [
        ((), "NOT MEASURED", False),
        ((9,), "PASS (1 seed)", False),
        ((9, 8), "PASS (2 seeds)", False),
        ((9, 6), "FALLS SHORT (2 seeds)", False),
        ((9, 8, 7, 8, 9), "PASS", True),
        ((9, 8, 7, 7, 8), "FALLS SHORT", False),
    ],
)
def test_state(gains, state, ok):
    found = verdict(CLAIM, seeds(*gains))
    assert (found.state, found.ok) == (state, ok)


def test_mean_spread_and_margin():
    found = verdict(CLAIM, seeds(8, 10, 12))
    assert (found.mean, found.spread) == (10, 2)
    assert found.measured == "10.00 ± 2.00 points, 3 seeds"
    assert found.margin == "+2.00 (+1.7 s.e.)"
    assert verdict(replace(CLAIM, limit=at_most(9)), seeds(8, 10, 12)).margin == "-1.00 (-0.9 s.e.)"
    assert verdict(CLAIM, seeds(9)).measured == "9.00 points, 1 seed"


def test_a_seed_without_all_trials_does_not_count():
    assert verdict(CLAIM, [*seeds(9), {"made": {"accuracy": 99}}]).values == (9,)


def test_what_was_never_reached_falls_short():
    found = verdict(replace(CLAIM, value=lambda seed: None, limit=at_least(-1e9)), seeds(1, 2, 3, 4, 5))
    assert (found.state, found.mean, found.ok) == ("FALLS SHORT", None, False)
    assert found.measured == "not reached with 5 of 5 seeds"


def test_one_seed_that_never_gets_there_is_not_averaged_away():
    def reached(seed):
        return seed["made"]["accuracy"] if seed["made"]["accuracy"] > 51 else None

    found = verdict(replace(CLAIM, value=reached), seeds(9, 1))
    assert (found.mean, found.measured) == (None, "not reached with 1 of 2 seeds")


def test_verdicts_come_from_the_store_and_stale_records_do_not_count(tmp_path):
    store, trials = Store(tmp_path), {"made": TRIAL, "other": OTHER}
    for seed in (1, 2, 3):
        store.write(OTHER, seed, record(OTHER, seed, accuracy=50))
    for seed in (1, 2):
        store.write(TRIAL, seed, record(TRIAL, seed, accuracy=60 + seed))
    store.write(TRIAL, 3, record(replace(TRIAL, devices=1), 3, accuracy=99))
    assert verdicts([CLAIM], store, trials)[0].values == (11, 12)


FIGURES = {
    "evaluated": [
        {"rounds": 2, "accuracy": 0.5, "accuracy_by_bits": {"4": 0.4}},
        {"rounds": 4, "accuracy": 0.7, "accuracy_by_bits": {"4": 0.6}},
    ],
    "loss_by_round": [2.0, None, 0.5, 0.4],
    "up_by_round": [1, 2, 3, 4],
    "down_by_round": [10, 10, 10, 10],
    "personal": {"mean": {"accuracy_personal": 0.9, "accuracy_local": 0.8}},
}


def test_readings():
    assert spent(FIGURES) == [1, 3, 6, 10]
    assert spent(FIGURES, "both") == [11, 23, 36, 50]
    assert bytes_to_accuracy(FIGURES, 50) == 3
    assert bytes_to_accuracy(FIGURES, 60, "both") == 50
    assert bytes_to_accuracy(FIGURES, 71) is None
    assert bytes_to_loss(FIGURES, 2.0) == 0
    assert bytes_to_loss(FIGURES, 0.5) == 3  # the first two rounds led to it
    assert bytes_to_loss(FIGURES, 0.1) is None
    assert plateau(FIGURES) == pytest.approx(60)
    assert plateau(FIGURES, bits=4, readings=1) == pytest.approx(60)
    assert personal(FIGURES, "local") == pytest.approx(80)
    assert (ratio(1, 2), ratio(None, 2), ratio(1, None), ratio(1, 0)) == (0.5, None, None, None)


@pytest.mark.parametrize("chapter", [METHODS, TOGETHER], ids=["methods", "together"])
def test_every_claim_has_its_trials_and_every_trial_is_a_recipe(chapter):
    names = [claim.name for claim in chapter.claims]
    assert len(set(names)) == len(names)
    missing = {name for claim in chapter.claims for name in claim.trials} - set(chapter.trials)
    assert missing <= {"tg-links"}  # wall time over real links: not the simulator's
    for name, trial in chapter.trials.items():
        recipe = recipe_of(trial, 7)
        assert (recipe.name, recipe.seed, recipe.split.seed) == (name, 7 + trial.offset, 7 + trial.offset)
        assert recipe.devices.goal <= (trial.devices or recipe.devices.goal)


def test_only_takes_claims_trials_and_patterns():
    claims, trials = METHODS.claims, METHODS.trials
    one, runs = chosen("qr-kure-3bit", claims, trials)
    assert [claim.name for claim in one] == ["qr-kure-3bit"]
    assert {trial.name for trial in runs} == {"qr-fedavg", "qr-kure"}
    none, runs = chosen("pt-head", claims, trials)
    assert (none, [trial.name for trial in runs]) == ([], ["pt-head"])
    assert len(chosen("aq-*", claims, trials)[1]) == sum(name.startswith("aq-") for name in trials)
    assert len(chosen(None, claims, trials)[1]) == len(trials)
    with pytest.raises(SystemExit, match="nothing-like-it"):
        chosen("nothing-like-it", claims, trials)
