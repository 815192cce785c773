"""The device's own examples as training sees them."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.config import DataConfig
from edge_agent.training import local_data as module
from edge_agent.training.local_data import held_out_data, local_data
from models.archs import spec_of
from wire.errors import ConfigError, DataError

SPEC = spec_of("mlp-4", (1, 2, 3), 3, 1)


@pytest.fixture(autouse=True)
def _forget():
    module._cached.cache_clear()


@pytest.fixture
def readings(tmp_path):
    """Returns a function that leaves a folder with one .npz file."""

    def write(x, y):
        np.savez(tmp_path / "a.npz", x=x, y=y)
        return DataConfig("mine", folder=tmp_path)

    return write


def test_a_csv_row_takes_the_shape_that_the_model_expects(tmp_path):
    (tmp_path / "a.csv").write_text("1,2,3,4,5,6,0\n7,8,9,10,11,12,2\n")
    data = local_data(DataConfig("mine", folder=tmp_path), SPEC)
    assert data.x.tolist() == [[[[1, 2, 3], [4, 5, 6]]], [[[7, 8, 9], [10, 11, 12]]]]
    assert data.y.tolist() == [0, 2]


def test_npz_examples_come_as_they_are(readings):
    x = np.arange(12, dtype=np.float32).reshape(2, 1, 2, 3)
    data = local_data(readings(x, np.array([1, 2])), SPEC)
    np.testing.assert_array_equal(data.x, x)


@pytest.mark.parametrize(
    ("shape", "labels", "message"),
    [
        ((2, 1, 3, 2), [0, 1], r"shape \(1, 3, 2\)"),
        ((2, 5), [0, 1], r"shape \(5,\)"),
        ((2, 1, 2, 3), [0, 3], "label 3, the model knows 0 to 2"),
        ((2, 1, 2, 3), [0, -1], r"y\[1\] is -1"),
    ],
)
def test_what_does_not_fit_the_model(readings, shape, labels, message):
    with pytest.raises(DataError, match=message):
        local_data(readings(np.zeros(shape, np.float32), np.array(labels)), SPEC)


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"holds no \.npz or \.csv file"):
        local_data(DataConfig("mine", folder=tmp_path), SPEC)


def test_shares_of_a_known_task_are_disjoint_and_all_of_it():
    spec = spec_of("mlp-4", (1, 8, 8), 10, 1)
    parts = [local_data(DataConfig("digits", None, "iid", 3, part, 1), spec) for part in range(3)]
    whole = local_data(DataConfig("digits"), spec)
    assert sum(len(part) for part in parts) == len(whole)
    rows = [row.tobytes() for part in parts for row in part.x]
    assert sorted(rows) == sorted(row.tobytes() for row in whole.x)


def test_a_share_that_is_not_there():
    with pytest.raises(ConfigError, match=r"data\.part = 3; choose 0 to 2"):
        local_data(DataConfig("digits", None, "iid", 3, 3, 1), spec_of("mlp-4", (1, 8, 8), 10, 1))


def test_a_task_without_data_needs_a_folder():
    with pytest.raises(DataError, match="name a folder"):
        local_data(DataConfig("echo"), SPEC)


def test_held_out_examples_are_never_trained_on_and_stay_held_out(tmp_path):
    x = np.random.default_rng(1).normal(size=(300, *SPEC.input)).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x[:200], y=np.arange(200) % SPEC.outputs)
    config = DataConfig("digits", folder=tmp_path, held_out=0.3)
    held, rest = held_out_data(config, SPEC.input), local_data(config, SPEC)
    assert 30 < len(held) < 90
    assert len(held) + len(rest) == 200
    rows = {one.tobytes() for one in held.x}
    assert not rows & {one.tobytes() for one in rest.x}
    np.savez(tmp_path / "b.npz", x=x[200:], y=np.arange(100) % SPEC.outputs)
    module._cached.cache_clear()
    assert rows <= {one.tobytes() for one in held_out_data(config, SPEC.input).x}
    assert not rows & {one.tobytes() for one in local_data(config, SPEC).x}
    assert held_out_data(DataConfig("digits", folder=tmp_path), SPEC.input) is None
