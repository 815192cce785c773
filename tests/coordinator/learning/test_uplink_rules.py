"""ZeroFL's three uplink rules (Qiu et al., 2022, section 5) as settings of the codec, with the mean over all devices.

rule                    kind     ranked by
Top-K-Weights           weights  values     w' = sum_k (n_k/n) sent_k
Diff on Top-K-Weights   delta    weights    w' = w + sum_k (n_k/n) sent_k
Top-K-Weights Diff      delta    values     w' = w + sum_k (n_k/n) sent_k
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from coordinator.learning.mean import Mean
from models.archs import spec_of
from wire.bits import Bits
from wire.params import add, delta
from wire.spec import TensorSpec
from wire.stages.tensors import Codec

RULES = {"top-k-weights": ("weights", "values"), "diff-on-top": ("delta", "weights"), "top-k-diff": ("delta", "values")}
ORDER = (TensorSpec("conv", (8, 10)), TensorSpec("fc", (30, 7)), TensorSpec("fc.bias", (7,)))
WHOLE = ("*.bias",)
EXAMPLES = [30, 10, 60]


def drawn(seed, order=ORDER, spread=1.0):
    bits = Bits.of("uplink", seed)
    return {t.name: ((bits.uniform(t.count) - np.float32(0.5)) * np.float32(spread)).reshape(t.shape) for t in order}


BASE = drawn("base")
LOCAL = [add(BASE, drawn(seed, spread=0.4)) for seed in range(3)]


def sent(rule, after, share, stages=()):
    """Returns what the coordinator decodes of one device's update."""
    kind, by = RULES[rule]
    codec = Codec.of(ORDER, [{"stage": "topk", "share": share, "by": by}, *stages], "tensor", WHOLE)
    values = after if kind == "weights" else delta(after, BASE)
    return codec.decode(memoryview(codec.encode(values, (1, "pi"), after)))


def model_after(rule, updates, examples):
    mean = Mean()
    for tensors, weight in zip(updates, examples, strict=True):
        mean.fold(tensors, weight)
    return mean.result() if RULES[rule][0] == "weights" else add(BASE, mean.result())


def ranks(values, share):
    """The positions of the largest share, by a stable sort."""
    k = max(1, math.ceil(share * values.size))
    return set(np.argsort(-np.abs(values.reshape(-1)), kind="stable")[:k].tolist())


@pytest.mark.parametrize("share", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("rule", RULES)
def test_what_is_sent_is_the_share_of_each_layer_by_the_rule_s_own_rank(rule, share):
    after, change = LOCAL[0], delta(LOCAL[0], BASE)
    values = after if RULES[rule][0] == "weights" else change
    found = sent(rule, after, share)
    for name in ("conv", "fc"):
        kept = ranks(change[name] if rule == "top-k-diff" else after[name], share)
        wanted = np.where(np.isin(np.arange(values[name].size), [*kept]).reshape(values[name].shape), values[name], 0)
        assert np.array_equal(found[name], wanted)
        assert np.count_nonzero(found[name]) == len(kept) == math.ceil(round(share * wanted.size, 9))
    assert np.array_equal(found["fc.bias"], values["fc.bias"])  # what is dense in training is sent whole


def test_the_rules_choose_different_positions():
    chosen = {rule: np.flatnonzero(sent(rule, LOCAL[0], 0.2)["fc"]).tolist() for rule in RULES}
    assert chosen["top-k-weights"] == chosen["diff-on-top"] != chosen["top-k-diff"]


@pytest.mark.parametrize("rule", RULES)
def test_a_position_that_nobody_sends(rule):
    updates = [sent(rule, after, 0.1) for after in LOCAL]
    nobody = ~np.any([update["fc"] != 0 for update in updates], axis=0)
    assert 0 < nobody.sum() < nobody.size
    after = model_after(rule, updates, EXAMPLES)["fc"]
    left = np.zeros_like(BASE["fc"]) if rule == "top-k-weights" else BASE["fc"]
    assert np.array_equal(after[nobody], left[nobody])
    assert (after[~nobody] != left[~nobody]).all()


@pytest.mark.parametrize("rule", RULES)
def test_every_position_is_divided_by_the_examples_of_all_devices(rule):
    """Who does not send a position counts with 0 there: one sender of n_k among n moves it by n_k / n."""
    updates = [sent(rule, after, 0.1) for after in LOCAL]
    senders = np.stack([update["fc"] != 0 for update in updates])
    alone = senders.sum(axis=0) == 1
    after = model_after(rule, updates, EXAMPLES)["fc"]
    start = np.zeros_like(BASE["fc"]) if rule == "top-k-weights" else BASE["fc"]
    for at, examples in enumerate(EXAMPLES):
        mine = alone & senders[at]
        assert mine.any()
        wanted = start[mine] + updates[at]["fc"][mine] * (examples / sum(EXAMPLES))
        np.testing.assert_allclose(after[mine], wanted, rtol=1e-6)
    every = np.average([update["fc"].astype(np.float64) for update in updates], axis=0, weights=EXAMPLES)
    np.testing.assert_allclose(after, start + every, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sparsity", [0.9, 0.95])
@pytest.mark.parametrize("rule", RULES)
def test_a_mask_ratio_as_large_as_the_sparsity_is_plain_averaging(rule, sparsity):
    share = 1 - sparsity + sparsity
    plain = LOCAL if RULES[rule][0] == "weights" else [delta(after, BASE) for after in LOCAL]
    updates = [sent(rule, after, share) for after in LOCAL]
    after, wanted = model_after(rule, updates, EXAMPLES), model_after(rule, plain, EXAMPLES)
    assert all(after[name].tobytes() == wanted[name].tobytes() for name in wanted)


DENSE = ("stem*", "out*", "*norm*", "*shortcut*", "*.bias")
SAVINGS = [(0.9, 0.0, 4.3), (0.9, 0.1, 2.3), (0.9, 0.2, 1.6), (0.95, 0.0, 7.4), (0.95, 0.1, 3.0), (0.95, 0.2, 1.9)]


@pytest.mark.parametrize(("sparsity", "mask_ratio", "published"), SAVINGS)
def test_the_bytes_of_a_residual_net_are_fewer_than_published(sparsity, mask_ratio, published):
    """The paper sends 8 bytes a kept weight, value and index. Here the places take a bit a weight, or less."""
    order = spec_of("resnet18-8", (3, 32, 32), 10, 1).trainable
    params, share = drawn("bytes", order), 1 - sparsity + mask_ratio
    codec = Codec.of(order, [{"stage": "topk", "share": share}], "tensor", DENSE)
    payload = codec.encode(params)
    thinned = [tensor for tensor in order if ".conv" in tensor.name]
    count, whole = sum(t.count for t in thinned), sum(t.count for t in order if t not in thinned)
    kept = sum(math.ceil(share * tensor.count) for tensor in thinned)
    assert len(thinned) == 16 and count > 0.95 * (count + whole)
    values, heads = 4 * (kept + whole), 20 * len(order)
    assert values < len(payload) <= values + heads + count / 8 + 2 * len(thinned)
    assert len(payload) < 8 * kept + 4 * whole
    assert 4 * (count + whole) / len(payload) > published
    restored = codec.decode(memoryview(payload))
    assert sum(np.count_nonzero(restored[tensor.name]) for tensor in thinned) == kept
