"""Settings of transforms and penalties: what is read, and what is refused by name."""

import subprocess
import sys

import pytest

from models.weights.settings import (
    Activations,
    Apqn,
    Kure,
    Mqat,
    Qat,
    Swat,
    check_penalty,
    check_transforms,
    kept_names,
    shaped_names,
)
from models.weights.transform import TRANSFORMS, transforms_of
from wire.errors import ConfigError

NAMES = ("conv1.weight", "conv2.weight", "out.weight")


@pytest.mark.parametrize(
    ("table", "settings"),
    [
        ({"transform": "qat", "bits": 3}, Qat(3)),
        ({"transform": "qat", "grid": "channel", "range": "lsq"}, Qat(4, "channel", "lsq")),
        ({"transform": "apqn", "bits": 3}, Apqn((3,))),
        ({"transform": "apqn", "bits": [3, 4]}, Apqn((3, 4))),
        ({"transform": "mqat", "bits": (3, 4, 8, 32), "draw": "layer"}, Mqat((3, 4, 8, 32), "layer")),
        ({"transform": "mqat", "skip": ["first"]}, Mqat(skip=("first",))),
        ({"transform": "swat", "sparsity": 0.9}, Swat(0.9, 10, ("first", "last"))),
        ({"transform": "activations", "bits": 8, "keep": 0.5}, Activations(8, 0.5)),
    ],
)
def test_tables_that_are_read(table, settings):
    assert check_transforms([table]) == (settings,)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "transform = None"),
        ({"transform": 3}, "transform = 3"),
        ({"transform": "quat"}, "unknown transform 'quat'.*known: .*qat"),
        ({"transform": "qat", "bit": 3}, "transform 'qat': unknown key 'bit'; did you mean 'bits'"),
        ({"transform": "qat", "bits": 1}, "transform 'qat': bits = 1;.*1 bit has no such grid"),
        ({"transform": "qat", "bits": [3]}, "transform 'qat': bits"),
        ({"transform": "qat", "bits": 24}, "choose 2 to 16, or 32"),
        ({"transform": "qat", "grid": "row"}, "transform 'qat': grid = 'row'; choose one of tensor, channel"),
        ({"transform": "apqn", "range": "mse"}, "range = 'mse'; choose one of minmax, lsq"),
        ({"transform": "apqn", "bits": []}, r"bits = \[\] of apqn"),
        ({"transform": "mqat", "bits": [3, 3]}, r"bits = \[3, 3\] of mqat"),
        ({"transform": "mqat", "bits": [3, 1]}, "bits = 1"),
        ({"transform": "mqat", "draw": "epoch"}, "draw = 'epoch'; choose one of step, layer, round"),
        ({"transform": "swat"}, "transform 'swat': key 'sparsity' is missing"),
        ({"transform": "swat", "sparsity": 1.0}, "sparsity = 1.0"),
        ({"transform": "swat", "sparsity": float("nan")}, "sparsity = nan"),
        ({"transform": "swat", "sparsity": 0.5, "period": 0}, "period = 0"),
        ({"transform": "activations", "keep": 1.5}, "keep = 1.5"),
        ({"transform": "activations", "bits": 1}, "bits = 1"),
    ],
)
def test_tables_that_are_refused(table, message):
    with pytest.raises(ConfigError, match=message):
        check_transforms([table])


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["qat", "qat"], "'qat' stands there twice"),
        (["qat", "mqat"], "qat and mqat both decide"),
        (["apqn", "qat"], "apqn and qat both decide"),
        (["swat", "apqn"], "swat and apqn undo"),
        (["mqat", "swat"], "swat stands after mqat"),
    ],
)
def test_combinations_without_meaning(kinds, message):
    tables = [{"transform": kind} | ({"sparsity": 0.5} if kind == "swat" else {}) for kind in kinds]
    with pytest.raises(ConfigError, match=message):
        check_transforms(tables)


def test_combinations_with_meaning_keep_their_order():
    tables = [{"transform": "swat", "sparsity": 0.5}, {"transform": "mqat"}, {"transform": "activations"}]
    assert [type(one) for one in check_transforms(tables)] == [Swat, Mqat, Activations]
    made = transforms_of(tables, NAMES)
    assert [type(one).__name__ for one in made] == ["SparseWeights", "Multibit", "RangedActivations"]
    assert [one.names for one in made[:2]] == [("conv2.weight",), NAMES]


def test_every_transform_can_be_made():
    for kind in TRANSFORMS:
        table = {"transform": kind} | ({"sparsity": 0.5} if kind == "swat" else {})
        (made,) = transforms_of([table], NAMES)
        assert made.settings == check_transforms([table])[0]


def test_no_tables_are_no_transforms():
    assert transforms_of([], NAMES) == []


def test_weights_are_what_has_two_dimensions():
    shapes = {"conv.weight": (4, 1, 3, 3), "norm.weight": (4,), "conv.bias": (4,), "out.weight": (2, 4)}
    assert shaped_names(shapes) == ("conv.weight", "out.weight")
    assert shaped_names(shapes, ["last"]) == ("conv.weight",)


def test_what_is_skipped():
    assert kept_names(NAMES, []) == NAMES
    assert kept_names(NAMES, ["first", "last"]) == ("conv2.weight",)
    assert kept_names(NAMES, ["conv*"]) == ("out.weight",)
    assert kept_names(NAMES, ["last", "out.weight"]) == NAMES[:2]
    with pytest.raises(ConfigError, match="skip: 'fc1' is none of"):
        kept_names(NAMES, ["fc1"])


def test_a_transform_that_has_nothing_to_do_is_refused():
    with pytest.raises(ConfigError, match="'swat' has no tensor"):
        transforms_of([{"transform": "swat", "sparsity": 0.5}], NAMES[:2])


def test_penalties():
    assert check_penalty({}) is None
    assert check_penalty({"penalty": "kure", "strength": 0}) is None
    assert check_penalty({"penalty": "kure", "strength": 2}) == Kure(2.0, 1.8)
    for table, message in [
        ({"penalty": "kurt"}, "unknown penalty 'kurt'; known: kure"),
        ({"strength": 1}, "penalty = None"),
        ({"penalty": "kure", "strength": -1}, "penalty 'kure': strength = -1.0"),
        ({"penalty": "kure", "target": 0.5}, "target = 0.5"),
        ({"penalty": "kure", "goal": 1}, "unknown key 'goal'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            check_penalty(table)


def test_checking_settings_loads_no_torch():
    code = "import sys, models.weights.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
