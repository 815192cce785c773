"""What stages leave out, round after round with feedback: it stays small, or the recipe is refused."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.recipes.combine import _amplifies
from wire.bits import Bits
from wire.stages.chain import Chain
from wire.stages.stage import Local

SIGNS = {"stage": "signs"}


def levels(count, norm="max"):
    return {"stage": "levels", "levels": count, "norm": norm}


def topk(share):
    return {"stage": "topk", "share": share}


def worst(stages, rounds=60, count=10_000):
    """Returns the largest residual over the length of a change, where every change is normal."""
    chain, drawn = Chain.of(stages), np.random.default_rng(1)
    residual, sizes = np.zeros(count, np.float32), []
    for number in range(rounds):
        wanted = (drawn.standard_normal(count) + residual).astype(np.float32)
        sent, _ = chain.decode(memoryview(chain.encode(wanted, Local(), Bits.of(number))), count)
        residual = wanted - sent
        sizes.append(float(np.linalg.norm(residual)) / count**0.5)
    return max(sizes)


@pytest.mark.parametrize(
    ("stages", "grows"),
    [
        ([topk(0.02)], False),
        ([topk(0.02), levels(1)], False),  # the recipe `combined` at its fewest levels
        ([topk(0.5), levels(1)], False),
        ([topk(0.9), levels(1)], True),
        ([levels(1)], True),
        ([levels(2)], False),
        ([topk(0.1), levels(2, "l2")], True),
        ([SIGNS], False),
        ([topk(0.1), SIGNS], False),
    ],
    ids=str,
)
def test_what_grows_is_refused(stages, grows):
    assert (worst(stages) > 8) == grows == _amplifies(tuple(stages))
