"""Epsilon against closed forms: the Gaussian mechanism (Balle and Wang, 2018), zCDP (Bun and Steinke, 2016)."""

from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest

from coordinator.learning.epsilon import epsilon, tree_sensitivity
from coordinator.recipes.sections import Privacy
from wire.errors import ConfigError, StateError

MANY = 1000


def spent(z=2.0, rounds=10, per_round=MANY, mechanism="gaussian", population=0, joined=None, delta=1e-5):
    pytest.importorskip("dp_accounting")
    return epsilon(Privacy(1.0, z, mechanism, delta, population), rounds, per_round, joined)


def delta_of(epsilon_, sigma):
    """Balle and Wang, theorem 8: the delta of one Gaussian release of sensitivity 1."""
    phi = [
        0.5 * math.erfc(-x / math.sqrt(2)) for x in (0.5 / sigma - epsilon_ * sigma, -0.5 / sigma - epsilon_ * sigma)
    ]
    return phi[0] - math.exp(epsilon_) * phi[1]


@pytest.mark.parametrize(("z", "rounds"), [(1.0, 1), (4.0, 1), (2.0, 10), (8.0, 100)])
def test_unsampled_rounds_are_one_gaussian_release(z, rounds):
    found = spent(z, rounds)
    assert delta_of(found.epsilon, z / math.sqrt(rounds)) == pytest.approx(1e-5, rel=1e-6)
    assert found.delta == 1e-5
    assert any(f"all {rounds} rounds" in said for said in found.assumptions)


@pytest.mark.parametrize(("z", "epochs", "published"), [(1.3, 15, 1.19), (1.1, 60, 3.01), (0.7, 45, 7.10)])
def test_the_usual_account_is_near_the_published_values(z, epochs, published):
    """TensorFlow Privacy's MNIST example: 60,000 examples, batch 256; its conversion was a looser one."""
    text = spent(z, epochs * 60_000 // 256, 256, population=60_000).assumptions[2]
    assert 0.75 * published < float(text.rpartition(" ")[2]) <= published


@pytest.mark.parametrize(("mechanism", "population"), [("gaussian", 0), ("gaussian", 100_000), ("tree", 0)])
def test_more_rounds_cost_more_and_more_noise_costs_less(mechanism, population):
    by_rounds = [spent(2.0, rounds, 100, mechanism, population).epsilon for rounds in (1, 8, 512)]
    by_noise = [spent(z, 64, 100, mechanism, population).epsilon for z in (0.7, 2.0, 8.0)]
    assert by_rounds == sorted(set(by_rounds))
    assert by_noise == sorted(set(by_noise), reverse=True)
    assert spent(2.0, 0, 100, mechanism, population).epsilon == 0.0


def test_sampling_everyone_is_no_sampling_at_twice_the_distance():
    found = spent(4.0, 10, 1000, population=1000)
    assert delta_of(found.epsilon, 4.0 / 2 / math.sqrt(10)) == pytest.approx(1e-5, rel=1e-6)


def test_sampling_few_of_many_helps_and_says_what_it_takes():
    alone, sampled = spent(2.0, 100, 100), spent(2.0, 100, 100, population=100_000)
    assert sampled.epsilon < alone.epsilon / 10
    text = " | ".join(sampled.assumptions)
    for words in (
        "replaced by another",
        "drawn uniformly from all 100000",
        "without replacement",
        "leave the population",
    ):
        assert words in text
    poisson = float(text.split("epsilon would be ")[1].split(" |")[0])
    assert 0 < poisson < sampled.epsilon


@pytest.mark.parametrize("rounds", [1, 7, 8, 100, 1600])
def test_a_tree_of_single_takings_part_costs_its_depth(rounds):
    z, depth = 4.0, rounds.bit_length()
    found, exact = spent(z, rounds, mechanism="tree"), spent(z, rounds, mechanism="tree", joined=[[1]])
    rho = depth / (2 * z**2)
    assert exact.epsilon <= found.epsilon <= rho + 2 * math.sqrt(rho * math.log(1e5))
    assert found.epsilon < 1.2 * exact.epsilon
    assert delta_of(exact.epsilon, z / math.sqrt(depth)) == pytest.approx(1e-5, rel=1e-6)
    assert any("at most once in the run" in said for said in found.assumptions)


def test_a_tree_over_a_small_population_counts_how_often_each_takes_part():
    once, thrice = spent(8.0, 16, 100, "tree", 1600), spent(8.0, 16, 100, "tree", 600)
    assert once.epsilon == spent(8.0, 16, 100, "tree").epsilon
    assert thrice.epsilon == pytest.approx(spent(8.0 / 3, 16, 100, "tree").epsilon)
    assert any("at most 3 times in the run" in said for said in thrice.assumptions)


@pytest.mark.parametrize("rounds", [1, 2, 5, 8, 11])
def test_the_tree_s_sensitivity_is_that_of_its_matrix(rounds):
    spans = [(at << level, (at + 1) << level) for level in range(5) for at in range(rounds)]
    matrix = np.array([[start <= step < end for step in range(rounds)] for start, end in spans if end <= rounds], float)
    for count in range(rounds + 1):
        for steps in itertools.islice(itertools.combinations(range(rounds), count), 30):
            taking_part = np.isin(np.arange(rounds), steps).astype(float)
            found = tree_sensitivity([step + 1 for step in steps], rounds)
            assert found == pytest.approx(np.linalg.norm(matrix @ taking_part))
            assert found <= count * math.sqrt(rounds.bit_length()) + 1e-9  # what the planned figure assumes


def test_the_record_of_who_took_part_is_the_better_account():
    planned = spent(4.0, 20).epsilon
    recorded = spent(4.0, 20, joined=[[1, 5, 9], [2], range(3, 8)])
    assert recorded.epsilon < planned
    assert recorded.epsilon == pytest.approx(spent(4.0, 5).epsilon)
    assert spent(4.0, 20, joined=[range(1, 21)]).epsilon == pytest.approx(planned)
    assert spent(4.0, 20, joined=[]).epsilon == 0.0
    with pytest.raises(StateError, match="in a tree over 4"):
        spent(4.0, 4, mechanism="tree", joined=[[5]])


def test_what_makes_the_figure_meaningless_is_said():
    assert spent(8.0, 10).warning == ""
    assert "with 4 devices a round" in spent(8.0, 10, 4).warning
    assert "promises next to nothing" in spent(0.5, 10).warning
    assert "delta 0.001 is not below 1 / 1000" in spent(8.0, 10, delta=1e-3).warning
    assert "delta 1e-05 is not below 1 / 200000" in spent(8.0, 10, population=200_000).warning


@pytest.mark.parametrize("privacy", [Privacy(), Privacy(1.0)])
def test_clipping_alone_promises_nothing_and_needs_no_accountant(privacy, monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    found = epsilon(privacy, 5, MANY)
    assert found.epsilon == math.inf
    assert found.warning.startswith("without clip and noise nothing is promised")


def test_a_missing_accountant_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ConfigError, match=r"pip install \"bitfleet\[privacy\]\""):
        epsilon(Privacy(1.0, 1.0), 5, MANY)


def test_a_population_smaller_than_a_round_is_refused():
    with pytest.raises(ConfigError, match=r"privacy.population = 9 with 10 devices a round"):
        spent(per_round=10, population=9)
    with pytest.raises(ConfigError, match="-1 rounds"):
        spent(rounds=-1)


def test_the_accountant_says_nothing_on_the_terminal(capfd):
    for z in (0.3, 1.0, 8.0):
        spent(z, 100, 100, population=1000)
        spent(z, 100, 100, "tree")
    assert capfd.readouterr() == ("", "")
