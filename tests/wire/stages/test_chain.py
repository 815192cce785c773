"""Chains: settings to stages, sizes known beforehand, hostile settings named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.bits import Bits
from wire.errors import ConfigError, WireError
from wire.stages.chain import Chain
from wire.stages.stage import Local

TOPK = st.fixed_dictionaries({"stage": st.just("topk"), "share": st.floats(0.01, 1)})
LEVELS = st.fixed_dictionaries(
    {"stage": st.just("levels"), "levels": st.integers(1, 65535), "norm": st.sampled_from(["max", "l2"])}
)
SIGNS = st.just({"stage": "signs"})
SETTINGS = st.tuples(st.lists(TOPK, max_size=2), st.lists(LEVELS | SIGNS, max_size=1)).map(
    lambda two: [*two[0], *two[1]]
)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400)
ANYTHING = SCALAR | st.lists(SCALAR, max_size=2) | st.dictionaries(st.text(max_size=3), SCALAR, max_size=2)
NAMES = st.sampled_from(["stage", "levels", "norm", "share", "by", "self"])
HOSTILE = st.lists(
    st.dictionaries(
        NAMES, ANYTHING | st.sampled_from(["topk", "levels", "signs", "weights", "l2", 7, 0.5]), max_size=4
    ),
    max_size=4,
)


@given(SETTINGS, st.integers(1, 300), st.integers(0, 1 << 20))
def test_decoding_gives_what_the_encoder_sees_and_leaves_the_rest(settings, count, key):
    chain, x = Chain.of(settings), Bits.of("x", key).uniform(count) - np.float32(0.5)
    record = chain.encode(x, Local(), Bits(key))
    assert len(record) <= chain.most_bytes(count)
    values, rest = chain.decode(memoryview(record + b"more"), count)
    assert bytes(rest) == b"more" and values.dtype == np.float32 and len(values) == count
    again, _ = Chain.of(settings).decode(memoryview(chain.encode(x, Local(), Bits(key))), count)
    assert again.tobytes() == values.tobytes()
    if all(setting["stage"] == "topk" for setting in settings):
        assert set(np.flatnonzero(values)) <= set(np.flatnonzero(x))
        assert (values[values != 0] == x[values != 0]).all()


def test_no_stages_are_exact():
    x = np.float32([1, -2.5, 0, 1e-45])
    record = Chain.of([]).encode(x, Local(), Bits(0))
    assert record == b"\4\0\0\0\0\0\0\0\x10\0\0\0" + x.astype("<f4").tobytes()
    assert Chain.of([]).decode(memoryview(record), 4)[0].tobytes() == x.tobytes()


@given(HOSTILE)
def test_hostile_settings_make_a_chain_or_a_config_error(settings):
    try:
        chain = Chain.of(settings)
    except ConfigError:
        return
    assert len(chain.stages) == len(settings)
    assert chain.most_bytes((1 << 32) - 1) > 0


@pytest.mark.parametrize(
    "settings",
    [
        [{}],
        [{"stage": "pack"}],
        [{"stage": []}],
        [{"stage": {}}],
        [{"stage": None}],
        [{"stage": "x" * 10_000}],
        [{"stage": "levels"}],
        [{"stage": "levels", "levels": "x"}],
        [{"stage": "levels", "levels": 7, "more": 1}],
        [{"stage": "levels", "levels": 7, "self": 1}],
        [{"stage": "levels", "levels": 7}, {"stage": "levels", "levels": 7}],
        [{"stage": "levels", "levels": 7}, {"stage": "topk", "share": 0.5}],
        [{"stage": "levels", "levels": 7}, {"stage": "signs"}],
        [{"stage": "signs"}, {"stage": "levels", "levels": 7}],
        [{"stage": "signs"}, {"stage": "signs"}],
        [{"stage": "signs"}, {"stage": "topk", "share": 0.5}],
        [{"stage": "signs", "levels": 1}],
        [{"stage": "topk", "share": float("nan")}],
        [{"stage": "topk", "share": True}],
        [{"stage": "topk", "share": [[0.5]]}],
    ],
)
def test_settings_without_meaning(settings):
    with pytest.raises(ConfigError) as caught:
        Chain.of(settings)
    assert len(str(caught.value)) < 400


def test_ranking_by_weights_comes_first():
    chain = Chain.of([{"stage": "topk", "share": 0.5}, {"stage": "topk", "share": 0.5, "by": "weights"}])
    x = np.float32([1, 2, 3, 4])
    with pytest.raises(ConfigError):
        chain.encode(x, Local(x), Bits(0))


@pytest.mark.parametrize("cut", range(0, 48, 3))
def test_a_short_record_is_refused(cut):
    chain, x = (
        Chain.of([{"stage": "topk", "share": 0.5}, {"stage": "levels", "levels": 7}]),
        np.float32([1, 2, 3, 4, 5]),
    )
    record = chain.encode(x, Local(), Bits(0))
    if cut < len(record):
        with pytest.raises(WireError) as caught:
            chain.decode(memoryview(record)[:cut], 5)
        assert caught.value.code == "E-SHAPE"


def test_another_count_is_refused():
    record = Chain.of([]).encode(np.float32([1, 2]), Local(), Bits(0))
    with pytest.raises(WireError) as caught:
        Chain.of([]).decode(memoryview(record), 3)
    assert caught.value.code == "E-SHAPE"
