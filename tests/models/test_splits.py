"""Splits: every example exactly once, no part empty, and each rule's own promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.splits import Share, indices_of, parts_of, split
from wire.errors import ConfigError

LABELS = np.repeat(np.arange(10), 100)
GOLDEN = {
    "iid": [[5, 7, 8, 10], [0, 1, 2, 6], [3, 4, 9, 11]],
    "dirichlet:0.5": [[4], [9], [0, 1, 2, 3, 5, 6, 7, 8, 10, 11]],
    "classes:2": [[3, 6, 7, 10], [1, 2, 4, 8], [0, 5, 9, 11]],
}


def skew(parts, labels=LABELS):
    """Returns the mean total variation between a part's labels and all labels: 0 is even."""
    whole = np.bincount(labels, minlength=10) / len(labels)
    rows = [np.bincount(labels[part], minlength=10) / len(part) for part in parts]
    return float(np.mean([abs(row - whole).sum() / 2 for row in rows]))


def is_partition(parts, count):
    whole = np.concatenate(parts)
    return len(whole) == count and set(whole.tolist()) == set(range(count)) and all(len(part) for part in parts)


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    rule=st.sampled_from(["iid", "dirichlet:0.01", "dirichlet:0.5", "dirichlet:100"]),
    seed=st.integers(0, 2**63),
    data=st.data(),
)
def test_every_example_in_exactly_one_part(labels, rule, seed, data):
    parts = split(np.array(labels), None, rule, data.draw(st.integers(1, len(labels))), seed)
    assert is_partition(parts, len(labels))
    assert all((np.diff(part) > 0).all() for part in parts)


@pytest.mark.parametrize("rule", ["iid", "dirichlet:0.3", "classes:2"])
def test_the_seed_decides(rule):
    def flat(seed):
        return [part.tolist() for part in split(LABELS, None, rule, 7, seed)]

    assert flat(1) == flat(1)
    assert flat(1) != flat(2)


def test_iid_parts_are_equal_in_size():
    assert {len(part) for part in split(LABELS, None, "iid", 3, 0)} == {333, 334}


def test_a_smaller_alpha_is_more_uneven():
    skews = [skew(split(LABELS, None, f"dirichlet:{alpha}", 10, 5)) for alpha in (0.05, 0.5, 5, 500)]
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.6
    assert skews[-1] < 0.1


def test_dirichlet_shares_have_the_right_mean_and_variance():
    """Of Dirichlet(a, ..., a) over n parts: mean 1/n, variance (n - 1) / (n^2 (n a + 1))."""
    from models.splits import _shares
    from wire.bits import Bits

    bits = Bits.of("moments")
    for alpha in (0.3, 1.0, 4.0):
        draws = np.array([_shares(alpha, 4, bits) for _ in range(3000)])
        assert np.allclose(draws.sum(axis=1), 1)
        assert np.allclose(draws.mean(axis=0), 0.25, atol=0.02)
        assert np.allclose(draws.var(axis=0), 3 / (16 * (4 * alpha + 1)), rtol=0.12)


@pytest.mark.parametrize(("each", "parts"), [(1, 10), (2, 5), (2, 7), (3, 20), (10, 4)])
def test_classes_are_counted(each, parts):
    shared = split(LABELS, None, f"classes:{each}", parts, 3)
    assert is_partition(shared, len(LABELS))
    assert {len(np.unique(LABELS[part])) for part in shared} == {each}
    holders = np.bincount(np.concatenate([np.unique(LABELS[part]) for part in shared]))
    assert holders.max() - holders.min() <= 1


def test_subjects_in_order_of_id():
    subjects = np.array([7, 3, 7, 9, 3])
    labels = np.zeros(5, dtype=np.int64)
    assert [part.tolist() for part in split(labels, subjects, "subject", 3, 0)] == [[1, 4], [0, 2], [3]]
    assert [part.tolist() for part in split(labels, subjects, "subject", 2, 0)] == [[1, 4], [0, 2]]
    with pytest.raises(ConfigError, match="3 subjects"):
        split(labels, subjects, "subject", 4, 0)
    with pytest.raises(ConfigError, match="without subjects"):
        split(labels, None, "subject", 1, 0)


def test_golden_parts():
    """The same on every machine: a change here changes every federation that was ever run."""
    labels = np.arange(12) % 3
    found = {rule: [part.tolist() for part in split(labels, None, rule, 3, 7)] for rule in GOLDEN}
    assert found == GOLDEN


@pytest.mark.parametrize(
    ("rule", "parts"),
    [
        ("even", 2),
        ("iid:3", 2),
        ("dirichlet", 2),
        ("dirichlet:0", 2),
        ("dirichlet:-1", 2),
        ("dirichlet:nan", 2),
        ("dirichlet:inf", 2),
        ("classes:two", 2),
        ("classes:0", 2),
        ("classes:11", 2),
        ("classes:1", 9),
        ("classes:10", 101),
        ("iid", 0),
        ("iid", 1001),
    ],
)
def test_what_makes_no_sense_is_refused(rule, parts):
    with pytest.raises(ConfigError) as caught:
        split(LABELS, None, rule, parts, 0)
    assert caught.value.remedy


def test_a_share_is_one_of_the_parts():
    parts = split(LABELS, None, "iid", 4, 9)
    assert np.array_equal(indices_of(Share("iid", 4, 2, 9), LABELS, None), parts[2])
    with pytest.raises(ConfigError, match="part 4 of 4"):
        indices_of(Share("iid", 4, 4, 9), LABELS, None)


@pytest.mark.parametrize("rule", ["iid", "dirichlet:0.5", "classes:2", "subject"])
def test_only_some_examples_are_shared_out(rule):
    subjects = np.tile(np.arange(10), 100)
    parts = parts_of(Share(rule, 10, 0, 3, 500), LABELS, subjects)
    whole = np.concatenate(parts)
    assert len(whole) == len(set(whole.tolist())) == 500
    assert all((np.diff(part) > 0).all() for part in parts)
    assert [indices_of(Share(rule, 10, at, 3, 500), LABELS, subjects).tolist() for at in range(10)] == [
        part.tolist() for part in parts
    ]
    other = np.concatenate(parts_of(Share(rule, 10, 0, 4, 500), LABELS, subjects))
    assert set(other.tolist()) != set(whole.tolist())


def test_no_limit_shares_out_all_as_before():
    parts = parts_of(Share("iid", 7, 3, 5), LABELS, None)
    assert [part.tolist() for part in parts] == [part.tolist() for part in split(LABELS, None, "iid", 7, 5)]


@pytest.mark.parametrize("examples", [-1, 1001])
def test_more_examples_than_there_are_is_refused(examples):
    with pytest.raises(ConfigError, match="of 1000 examples"):
        parts_of(Share("iid", 2, 0, 1, examples), LABELS, None)
