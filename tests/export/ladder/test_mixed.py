"""Widths layer by layer: the file fits, and no even width that fits is more accurate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from export.graph import float_graph, weights_of
from export.ladder.choice import choose_range, choose_rule
from export.ladder.drafts import Bench, Draft, Wish, drafts, written
from export.ladder.mixed import Budget
from export.ladder.source import judged
from export.refused import ExportError
from export.sessions import answers, open_session
from models.dataset import Dataset
from wire.errors import ConfigError

WIDTHS = (8, 6, 5, 4, 3, 2)


def bench_of(source, profile, budget):
    model = float_graph(source.spec, source.params, source.still)
    weights = weights_of(model)
    rule = choose_rule(source, model, weights) if profile == "int8" else ""
    return Bench(source, model, weights, Wish((), (profile,), budget=budget), profile, rule)


def mixed_of(source, profile, budget):
    """Returns the bench, the mixed draft, its file's size, how it does; and (bytes, how it does) of each even width."""
    bench = bench_of(source, profile, budget)
    draft = drafts(bench)[f"{profile}-mixed"]()
    evens = {}
    for bits in WIDTHS:
        forms = choose_range(source, bench.weights, bits, profile).forms
        even = type(draft)("even", forms, "ls (loss)")
        evens[bits] = (len(written(bench, even)[0]), seen(source, bench, forms))
    return bench, draft, len(written(bench, draft)[0]), seen(source, bench, draft.forms), evens


def seen(source, bench, forms):
    """Returns how the file of these forms does on the examples that choose."""
    data = written(bench, Draft("mixed", forms, "mixed"))[0]
    return judged(answers(open_session(data), source.chooses.x), source.chooses.y)


@pytest.mark.parametrize("profile", ["int8", "float"])
@pytest.mark.parametrize("arch", ["cnn-8-16", "cnn1d-8-24"])
def test_the_file_fits_and_no_even_one_that_fits_is_more_accurate(arch, profile, source):
    one = source(arch)
    _, _, _, _, evens = mixed_of(one, profile, Budget(most_drop=1.0))
    for bits, spare in ((2, 0), (3, 97), (4, 0), (5, -1), (8, 5000)):
        most = evens[bits][0] + spare
        _, draft, size, mixed, found = mixed_of(one, profile, Budget(most_bytes=most))
        assert size <= most == draft.most_bytes
        fits = [even for bytes_, even in found.values() if bytes_ <= most]
        best = max(even.accuracy for even in fits)
        assert mixed.accuracy >= best
        assert mixed.loss <= min(even.loss for even in fits if even.accuracy == best)


@pytest.mark.parametrize("profile", ["int8", "float"])
def test_between_two_even_sizes_the_room_is_used(profile, source):
    evens = mixed_of(source("cnn-8-16"), profile, Budget(most_drop=1.0))[4]
    most = (evens[2][0] + evens[4][0]) // 2
    _, draft, size, mixed, _ = mixed_of(source("cnn-8-16"), profile, Budget(most_bytes=most))
    assert size <= most
    assert len({form.bits for form in draft.forms.values()}) > 1
    assert mixed.loss < 0.9 * min(even.loss for taken, even in evens.values() if taken <= most)


def test_a_byte_less_than_the_smallest_is_refused(source):
    bench = bench_of(source("cnn-8-16"), "float", Budget(most_bytes=1000))
    with pytest.raises(ExportError, match="allowed are 1000") as refused:
        drafts(bench)["float-mixed"]()
    least = int(refused.value.message.split(" bytes")[0].split()[-1])
    bench = bench_of(source("cnn-8-16"), "float", Budget(most_bytes=least))
    assert len(written(bench, drafts(bench)["float-mixed"]())[0]) == least
    bench = bench_of(source("cnn-8-16"), "float", Budget(most_bytes=least - 1))
    with pytest.raises(ExportError, match=f"has {least} bytes, allowed are {least - 1}"):
        drafts(bench)["float-mixed"]()


@pytest.mark.parametrize("profile", ["float", "int8"])
@pytest.mark.parametrize("drop", [0.03, 0.1, 1.0])
def test_no_more_is_lost_than_allowed_and_nothing_even_is_smaller(drop, profile, source):
    one = source("cnn-8-16")
    bench, draft, size, _, evens = mixed_of(one, profile, Budget(most_drop=drop))

    def accuracy(forms):
        return seen(one, bench, forms).accuracy

    even = {bits: choose_range(one, bench.weights, bits, profile).forms for bits in WIDTHS}
    least = one.choosing({}).accuracy - drop - 1e-9
    assert accuracy(draft.forms) >= least
    kept = [evens[bits][0] for bits in WIDTHS if accuracy(even[bits]) >= least]
    assert size <= min(kept) + 150  # a file of several widths lists them
    if drop == 1.0:
        assert size <= min(evens[bits][0] for bits in WIDTHS)


def test_what_no_width_reaches_is_refused_with_what_can_be_reached(source):
    one = source("mlp-32", examples=4000)
    outputs = np.sort(one.answers({}, one.data.x))
    hard = one.data.x[np.argsort(outputs[:, -1] - outputs[:, -2])[:100]]  # any rounding turns some of them
    few = replace(one, data=Dataset(hard, one.answers({}, hard).argmax(1)), calibration=100)
    with pytest.raises(
        ExportError, match=r"loses [0-9.]+ points or more on the 100 examples that choose, allowed are 0"
    ):
        drafts(bench_of(few, "int8", Budget(most_drop=0.0)))["int8-mixed"]()


def test_each_set_of_widths_is_measured_once(source, monkeypatch):
    one, asked = source("mlp-32"), []
    bench = bench_of(one, "float", Budget(most_bytes=10_000))
    made = drafts(bench)["float-mixed"]
    plain = type(one).choosing
    monkeypatch.setattr(type(one), "choosing", lambda self, weights: asked.append(1) or plain(self, weights))
    made()
    # 5 ranges of 6 widths; then two layers have no more than 36 sets of widths
    assert len(asked) <= 30 + 36


@pytest.mark.parametrize("wrong", [{}, {"most_bytes": 10, "most_drop": 0.1}])
def test_a_budget_is_one_thing(wrong):
    with pytest.raises(ConfigError, match="give one"):
        Budget(**wrong)


def test_without_examples_widths_are_not_guessed(source):
    bench = bench_of(source("mlp-32", examples=0), "float", Budget(most_bytes=10_000))
    with pytest.raises(ConfigError, match="measured on labelled examples"):
        drafts(bench)["float-mixed"]()
