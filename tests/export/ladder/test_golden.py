"""Golden inputs: those that no change within the tolerance can turn, as far as there are any."""

from __future__ import annotations

import numpy as np
import pytest

from export.ladder.golden import golden_rows, tolerance_of
from wire.bits import Bits
from wire.messages.golden import decode_golden


def outputs(*leads):
    """Returns outputs of three classes, the second ahead by so much."""
    return np.array([[0.0, lead, -1.0] for lead in leads], np.float32)


def test_rows_are_clear_in_every_file():
    seen = {"a": outputs(5, 5, 0.1, 5, 5), "b": outputs(5, 0.1, 5, 5, 5), "c": outputs(2.1, 5, 5, 2.2, 1.9)}
    assert golden_rows(seen, {"a": 1.0, "b": 1.0, "c": 1.0}).tolist() == [0, 3]
    assert golden_rows(seen, {"a": 1.0, "b": 1.0, "c": 0.5}).tolist() == [0, 3, 4]


def test_at_most_eight_rows_the_clearest():
    leads = np.arange(20) / 10 + 3
    assert golden_rows({"a": outputs(*leads)}, {"a": 1.0}).tolist() == list(range(12, 20))


def test_where_none_is_clear_the_nearest_stands_alone():
    assert golden_rows({"a": outputs(0.1, 0.3, 0.2)}, {"a": 1.0}).tolist() == [1]


def test_one_output_has_no_lead_to_lose():
    assert golden_rows({"a": np.zeros((12, 1), np.float32)}, {"a": 1.0}).tolist() == list(range(8))


@pytest.mark.parametrize("arch", ["mlp-32", "cnn-8-16", "resnet8-8"])
def test_nothing_within_the_tolerance_turns_an_answer(arch, source, export):
    report, out = export(source(arch), bits=(8, 6, 4))
    _, answers = decode_golden((out / "golden.bin").read_bytes())
    for one in report["variants"]:
        right = answers[one["name"]]
        for seed in range(20):
            off = (Bits.of(seed).uniform(right.size).reshape(right.shape) * 2 - 1) * one["tolerance"]
            assert ((right + np.sign(off) * one["tolerance"]).argmax(1) == right.argmax(1)).all()


def test_the_tolerance_grows_with_the_outputs():
    assert tolerance_of(np.float32([[-20, 3]]), "int8") == pytest.approx(1.0001)
    assert tolerance_of(np.float32([[-20, 3]]), "float") == pytest.approx(0.0201)
    assert tolerance_of(np.zeros((1, 2), np.float32), "float") == 1e-4
