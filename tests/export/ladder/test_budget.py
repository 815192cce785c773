"""Widths within a budget: exact for losses that add up, and never worse than where it began for those that do not."""

from __future__ import annotations

from itertools import product
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.ladder.budget import Lost, allot, refine, sensitivity, within
from wire.errors import ConfigError

WIDTHS = (2, 3, 4, 8)
LAYERS = ("a", "b", "c")

layer_bytes = st.lists(st.integers(8, 4000), min_size=3, max_size=3)
losses = st.lists(st.lists(st.floats(0, 5), min_size=4, max_size=4), min_size=3, max_size=3)


def sizes_of(weights):
    return {layer: {bits: count * bits // 8 for bits in WIDTHS} for layer, count in zip(LAYERS, weights, strict=True)}


def table_of(values):
    rows = [sorted(row, reverse=True) for row in values]  # narrower costs more
    rows = [[value - row[-1] for value in row] for row in rows]
    return [
        Lost(layer, bits, loss, 0.0)
        for layer, row in zip(LAYERS, rows, strict=True)
        for bits, loss in zip(WIDTHS, row, strict=True)
    ]


def summed(table, widths):
    return sum(one.loss for one in table if widths[one.layer] == one.bits)


@given(weights=layer_bytes, values=losses, share=st.floats(0.25, 1.0))
def test_the_allotment_is_the_best_that_fits(weights, values, share):
    sizes, table = sizes_of(weights), table_of(values)
    most = int(sum(each[8] for each in sizes.values()) * share) + 3
    (found,) = allot(table, sizes, most)
    assert within(found, sizes) <= most
    every = (dict(zip(LAYERS, one, strict=True)) for one in product(WIDTHS, repeat=3))
    # sizes are counted in cells of a 4096th of the budget: what fits with that much to spare must be as good
    spare = 3 * (most // 4096 + 1) if most > 4096 else 0
    best = min(summed(table, one) for one in every if within(one, sizes) <= most - spare or one == found)
    assert summed(table, found) <= best + 1e-9


@given(
    weights=st.lists(st.integers(8, 1300), min_size=3, max_size=3),
    values=losses,
    share=st.floats(0.25, 1.0),
    many=st.integers(1, 80),
)
def test_the_many_best_are_those_of_all_that_fit(weights, values, share, many):
    sizes, table = sizes_of(weights), table_of(values)
    most = int(sum(each[8] for each in sizes.values()) * share) + 3
    assert most <= 4096  # cells are bytes
    found = allot(table, sizes, most, many)
    every = [dict(zip(LAYERS, one, strict=True)) for one in product(WIDTHS, repeat=3)]
    sums = sorted(summed(table, one) for one in every if within(one, sizes) <= most)
    assert len({tuple(one.values()) for one in found}) == len(found) == min(many, len(sums))
    assert [summed(table, one) for one in found] == pytest.approx(sums[:many])
    assert all(within(one, sizes) <= most for one in found)


def test_too_small_a_budget_is_refused_with_what_it_would_take():
    sizes = sizes_of([800, 800, 800])
    with pytest.raises(ConfigError, match="600"):
        allot(table_of([[0.0] * 4] * 3), sizes, 599)
    assert allot(table_of([[3.0, 2.0, 1.0, 0.0]] * 3), sizes, 600) == [dict.fromkeys(LAYERS, 2)]


def test_the_table_says_which_layer_loses():
    def evaluate(widths):
        return (8 - widths["b"]) * 0.1, 1.0 - (8 - widths["b"]) * 0.01

    table = sensitivity(LAYERS, WIDTHS, evaluate)
    assert len(table) == 12
    assert {one.layer for one in table if one.loss > 0} == {"b"}
    worst = next(one for one in table if (one.layer, one.bits) == ("b", 2))
    assert worst.loss == pytest.approx(0.6) and worst.accuracy == pytest.approx(0.06)


def test_refining_finds_what_the_sum_cannot_know():
    """Here two narrow layers together cost much more than each alone."""

    def evaluate(widths):
        narrow = sum(bits < 4 for bits in widths.values())
        return float(narrow**3) + 0.01 * (24 - sum(widths.values())), 0.0

    sizes = sizes_of([80, 80, 80])
    start = {"a": 2, "b": 2, "c": 8}
    found, loss = refine(start, sizes, within(start, sizes), evaluate)
    assert within(found, sizes) <= within(start, sizes)
    assert loss == evaluate(found)[0] < evaluate(start)[0]
    assert found == dict.fromkeys(LAYERS, 4)


@given(weights=layer_bytes, seed=st.integers(0, 1000), trials=st.integers(1, 30))
def test_refining_never_gets_worse_or_larger(weights, seed, trials):
    sizes, asked = sizes_of(weights), []

    def evaluate(widths):
        asked.append(dict(widths))
        return float(crc32(f"{seed} {sorted(widths.items())}".encode()) % 997), 0.0

    start = dict.fromkeys(LAYERS, 3)
    found, loss = refine(start, sizes, within(start, sizes), evaluate, trials)
    assert loss <= evaluate(start)[0] and within(found, sizes) <= within(start, sizes)
    assert len(asked) <= trials + 2
