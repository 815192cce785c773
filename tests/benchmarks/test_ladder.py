"""What made-up figures of the ladder amount to: mixing proves nothing where even widths lose nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.ladder.mixing import verdicts
from benchmarks.ladder.trained import kept
from benchmarks.readme import filled

NAMES = [f"{profile}-{bits}" for profile in ("int8", "float") for bits in (4, 3)]


def seed(lost, won):
    """Returns the figures of a net whose even files lose so many points, and whose mixed ones win so many."""
    found = {"float accuracy": 0.9}
    for name in NAMES:
        even = 0.9 - lost / 100
        found |= {f"{name} accuracy": even, f"best even {name} accuracy": even}
        found[f"mixed {name} accuracy"] = even + won / 100
    return found


@pytest.mark.parametrize(
    ("seeds", "missed"),
    [
        ([(2, 1), (1, 0.5), (3, 0.2)], set()),
        ([(0.2, 0.5), (0.1, 0.5), (0.3, 0.5)], {"loses"}),
        ([(2, 1), (2, -0.1), (2, 1)], set()),
        ([(2, 0.5), (2, -0.5), (2, 0)], {"size of int8-3", "size of float-3"}),
        ([(2, -1), (2, -1), (2, 1)], {"size of"}),
    ],
)
def test_mixing_must_win_where_even_widths_lose(seeds, missed):
    figures, limits = verdicts(dict(enumerate(seed(*one) for one in seeds)))
    short = [one.name for one in limits if not one.ok]
    assert all(any(word in name for word in missed) for name in short)
    assert all(any(word in name for name in short) for word in missed)
    assert len(limits) == 6
    gains = [won for _, won in seeds]
    assert figures["layers mixed over int8-3, least"] == pytest.approx(min(gains))
    assert figures["layers mixed over int8-3, standard error"] == pytest.approx(np.std(gains, ddof=1) / 3**0.5)


def test_what_was_measured_is_kept_as_long_as_the_code_is_the_same(tmp_path):
    path, made = tmp_path / "figures.json", []

    def measure():
        made.append(1)
        return {"accuracy": 0.5}

    assert kept(path, measure) == kept(path, measure) == {"accuracy": 0.5}
    assert len(made) == 1
    path.write_text(json.dumps({"code": "another", "figures": {"accuracy": 0.9}}))
    assert kept(path, measure) == {"accuracy": 0.5}
    assert len(made) == 2


def test_a_table_between_marks_is_made_of_the_stored_figures():
    text = "before\n<!-- figures:ladder:widths --><!-- -->\nafter <!-- figures:idle -->old<!-- -->"
    full = filled(text)
    lines = full.splitlines()
    assert lines[1] == "<!-- figures:ladder:widths -->"
    assert lines[2].startswith("| bits | FedAvg, int8 | FedAvg, float | multi-bit QAT, int8 |")
    assert [line.split()[1] for line in lines[4:11]] == ["32", "8", "6", "5", "4", "3", "2"]
    assert lines[11] == "<!-- -->" and lines[12] == "after <!-- figures:idle -->" + lines[12].split("-->")[1] + "-->"
    assert filled(full) == full
