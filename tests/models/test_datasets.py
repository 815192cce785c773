"""Datasets and tasks by name. fashion and watch are tested where they were fetched before: see models/fetch.py."""

import numpy as np
import pytest

from models.archs import spec_of
from models.data import Dataset, checked, data_names, load
from models.fetch import cached
from models.sources.sets import Stored
from models.splits import Share
from models.tasks import dataset_of, task, task_names
from wire.errors import ConfigError, DataError

DIGITS_TEST_LABELS = [3, 6, 2, 5, 6, 7, 4, 9, 8, 4, 1, 7]


def fetched(name):
    try:
        cached(name)
    except DataError as exc:
        pytest.skip(str(exc))


def test_digits():
    train, test = load("digits"), load("digits", "test")
    assert (train.x.shape, test.x.shape) == ((1437, 1, 8, 8), (360, 1, 8, 8))
    assert (train.x.dtype, train.x.min(), train.x.max()) == (np.float32, 0.0, 1.0)
    assert (np.bincount(train.y) + np.bincount(test.y)).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    together = {row.tobytes() for row in train.x}
    assert not [row for row in test.x if row.tobytes() in together], "a test example is among the training ones"


def test_what_was_done_to_raw_values_goes_with_the_examples():
    share = load("digits", share=Share("iid", 10, 0, 1))
    assert share.preprocessing == share.take(np.arange(3)).preprocessing == "float32, values / 16"
    assert checked(share, "here").preprocessing == share.preprocessing
    assert Stored(np.zeros((1, 2)), np.zeros(1, np.int64)).preprocessing == "float32, values as they are"
    with pytest.raises(DataError, match="at most 500 characters"):
        checked(Dataset(share.x, share.y, preprocessing="x" * 501), "here")


def test_the_test_part_never_changes():
    assert load("digits", "test").y[:12].tolist() == DIGITS_TEST_LABELS


def test_shares_make_up_the_whole():
    whole = load("digits")
    shares = [load("digits", share=Share("dirichlet:0.5", 4, at, 3)) for at in range(4)]
    assert sum(len(share) for share in shares) == len(whole)
    rows = sorted(row.tobytes() for share in shares for row in share.x)
    assert rows == sorted(row.tobytes() for row in whole.x)


def test_fashion():
    fetched("fashion")
    test = load("fashion", "test")
    assert test.x.shape == (10_000, 1, 28, 28)
    assert np.bincount(test.y).tolist() == [1000] * 10
    assert (test.x.min(), test.x.max()) == (0.0, 1.0)
    share = load("fashion", share=Share("iid", 1000, 0, 1))
    assert share.x.shape == (60, 1, 28, 28)


def test_watch():
    fetched("watch")
    train, test = load("watch"), load("watch", "test")
    assert train.x.shape[1:] == test.x.shape[1:] == (6, 100)
    assert train.subject is not None
    assert sorted(set(train.subject.tolist())) == list(range(1, 11))
    assert sorted(set(test.y.tolist())) == list(range(7))
    mine = load("watch", share=Share("subject", 10, 3, 0))
    assert mine.subject is not None
    assert set(mine.subject.tolist()) == {4}


@pytest.mark.parametrize("name", ["digits", "fashion", "watch", "echo"])
def test_a_tasks_architecture_takes_its_data(name):
    one = task(name)
    assert one.name == name
    assert one.source
    assert spec_of(one.arch, one.input, one.outputs, 0).count > 0
    assert len(one.labels) == (one.outputs if one.data else 0)
    assert (one.metric is None) == (one.data is None)


def test_tasks_are_named_and_unknown_ones_refused():
    assert set(task_names()) >= {"digits", "echo", "fashion", "watch"}
    for wrong in (lambda: task("digit"), lambda: load("digit"), lambda: load("digits", "tset")):
        with pytest.raises(ConfigError) as caught:
            wrong()
        assert "digits" in str(caught.value)


def test_a_dataset_of_another_package(offer):
    whole = Dataset(np.ones((6, 5), np.float64), np.array([0, 1, 2, 0, 1, 2], np.int32))
    broken = Dataset(np.full((6, 5), np.nan), whole.y)
    offer("bitfleet.data", {"mine": lambda part: whole, "odd": lambda part: part, "broken": lambda part: broken})
    assert {"mine", "digits"} <= set(data_names()) & set(task_names())
    assert load("mine").x.dtype == np.float32
    assert len(load("mine", share=Share("iid", 3, 0, 1))) == 2
    made = task("mine")
    assert (made.data, made.arch, made.input, made.outputs) == ("mine", "mlp", (5,), 3)
    for name, says in (("odd", "gives str"), ("broken", "not finite")):
        with pytest.raises(DataError, match=says):
            load(name)


def test_the_data_of_a_task_are_loaded_once_to_see_their_shape(offer):
    asked, whole = [], Dataset(np.ones((6, 5)), np.arange(6) % 3)
    offer("bitfleet.data", {"mine": lambda part: asked.append(part) or whole})
    assert dataset_of("mine") == "mine"
    assert not asked
    assert [task("mine").outputs for _ in range(3)] == [3, 3, 3]
    assert asked == ["train"]
