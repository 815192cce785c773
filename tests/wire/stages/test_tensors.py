"""Named tensors through a chain: both scopes, the streams of the records, and a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.messages.samples import HELD, SPEC, STEP, ZERO
from wire.bits import Bits
from wire.errors import WireError
from wire.params import flatten
from wire.stages.chain import Chain
from wire.stages.stage import Local
from wire.stages.tensors import SCOPES, Codec

ROOT = Path(__file__).parents[3]
SEVEN = [{"stage": "levels", "levels": 7}]
SIGNS = [{"stage": "signs"}]
THIRD = [{"stage": "topk", "share": 0.3}]
CHAINS = [[], SEVEN, SIGNS, THIRD, [*THIRD, *SEVEN], [*THIRD, *SIGNS]]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("stages", CHAINS)
@given(key=st.integers(0, 1 << 20))
def test_round_trip(scope, stages, key):
    codec = Codec.of(SPEC.trainable, stages, scope)
    payload = codec.encode(STEP, (key,))
    assert len(payload) <= codec.most_bytes
    params = codec.decode(memoryview(payload))
    assert {name: value.shape for name, value in params.items()} == {"w": (3, 4), "b": (4,)}
    assert payload == codec.encode(STEP, (key,))
    if not stages:
        assert all(params[name].tobytes() == STEP[name].tobytes() for name in STEP)


def test_records_take_the_spec_s_order_and_numbered_streams():
    chain = Chain.of(SEVEN)
    w = chain.encode(STEP["w"].reshape(-1), Local(), Bits.of(1, "x", 0))
    b = chain.encode(STEP["b"], Local(), Bits.of(1, "x", 1))
    assert Codec.of(SPEC.trainable, SEVEN, "tensor").encode(STEP, (1, "x")) == w + b
    whole = chain.encode(flatten(STEP, SPEC.trainable), Local(), Bits.of(1, "x", 0))
    assert Codec.of(SPEC.trainable, SEVEN, "update").encode(STEP, (1, "x")) == whole


def test_weights_rank_part_by_part():
    codec = Codec.of(SPEC.trainable, [{"stage": "topk", "share": 0.25, "by": "weights"}], "tensor")
    params = codec.decode(memoryview(codec.encode(STEP, (), HELD)))
    assert np.flatnonzero(params["w"]).tolist() == [0, 1, 11]
    assert params["b"].tolist() == [0, 0, 0, 0]  # ties of the weights: position 0, whose change is 0


def test_no_tensors_take_no_bytes():
    codec = Codec.of((), SEVEN, "update")
    assert codec.encode({}) == b"" and codec.decode(memoryview(b"")) == {} and codec.most_bytes == 0


@pytest.mark.parametrize("scope", SCOPES)
def test_missing_and_surplus_records(scope):
    codec = Codec.of(SPEC.trainable, SEVEN, scope)
    for payload in (b"", codec.encode(STEP) + b"\0"):
        with pytest.raises(WireError) as caught:
            codec.decode(memoryview(payload))
        assert caught.value.code == "E-TENSORS"


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("stages", CHAINS)
def test_what_is_not_finite_is_not_encoded(stages, bad):
    broken = {**ZERO, "b": np.float32([0, bad, 0, 0])}
    with pytest.raises(WireError) as caught:
        Codec.of(SPEC.trainable, stages, "update").encode(broken)
    assert caught.value.code == "E-NONFINITE"


def test_a_fresh_interpreter_encodes_the_same():
    code = (
        "from tests.wire.messages.samples import SPEC, STEP\n"
        "from wire.stages.tensors import Codec\n"
        f"print(*[Codec.of(SPEC.trainable, s, 'tensor').encode(STEP, (3, 'd')).hex() for s in {CHAINS!r}])"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    fresh = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    ours = [Codec.of(SPEC.trainable, stages, "tensor").encode(STEP, (3, "d")).hex() for stages in CHAINS]
    assert fresh.stdout.split() == ours
