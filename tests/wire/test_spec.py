"""Model specs and parameters: JSON and back, digests, flat vectors."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.messages.samples import HELD, SPEC, STEP
from wire.errors import WireError
from wire.params import add, check_shapes, delta, flatten, params_digest, split
from wire.spec import ModelSpec, TensorSpec, canonical_json, spec_digest

TENSOR = st.builds(
    TensorSpec,
    st.text("abc.", min_size=1, max_size=5),
    st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple),
    st.floats(-10, 10),
    st.floats(0, 10),
)
TENSORS = st.lists(TENSOR, max_size=3).map(tuple)
SPECS = st.builds(ModelSpec, st.just("mlp"), st.just((1, 28)), st.integers(1, 9), st.integers(0, 99), TENSORS, TENSORS)


@given(SPECS)
def test_round_trip_through_json(spec):
    again = ModelSpec.from_json(json.loads(canonical_json(spec.to_json())))
    assert again == spec and spec_digest(again) == spec_digest(spec)


def test_golden_digests():
    text = (
        b'{"arch":"tiny","frozen":[],"input":[3],"outputs":4,"seed":5,"trainable":'
        b'[{"fill":0.0,"name":"w","shape":[3,4],"spread":0.5},{"fill":0.25,"name":"b","shape":[4],"spread":0.0}]}'
    )
    assert canonical_json(SPEC.to_json()) == text
    assert spec_digest(SPEC) == hashlib.sha256(text).hexdigest()
    b, w = HELD["b"].astype("<f4").tobytes(), HELD["w"].astype("<f4").tobytes()
    assert params_digest(HELD) == hashlib.sha256(b'["b",[4]]\n' + b + b'["w",[3,4]]\n' + w).hexdigest()


def test_counts():
    assert TensorSpec("w", (3, 4)).count == 12
    assert SPEC.count == 16


def broken(path: str, value: object) -> dict[str, object]:
    spec = json.loads(canonical_json(SPEC.to_json()))
    place = spec["trainable"][0] if path in spec["trainable"][0] else spec
    place[path] = value
    return spec


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"arch": "x"},
        broken("shape", []),
        broken("shape", [0]),
        broken("shape", [-1]),
        broken("shape", [1 << 40]),
        broken("shape", [1 << 16, 1 << 16]),
        broken("shape", [10**400]),
        broken("shape", "ab"),
        broken("fill", 10**400),
        broken("fill", "nan"),
        broken("spread", float("inf")),
        broken("spread", None),
        broken("spread", 1e39),
        broken("trainable", [1]),
        broken("trainable", "w"),
        broken("frozen", None),
        broken("seed", "x"),
        broken("trainable", [{"name": "w", "shape": [3 << 30], "fill": 0, "spread": 0}] * 2),
    ],
)
def test_what_is_no_spec(value):
    with pytest.raises((KeyError, TypeError, ValueError)):
        ModelSpec.from_json(value)


def test_the_digest_sees_every_value_name_and_shape():
    digests = {params_digest(HELD), params_digest({**HELD, "b": -HELD["b"]}), params_digest({"w": HELD["w"]})}
    digests |= {params_digest({**HELD, "w": HELD["w"].reshape(4, 3)}), params_digest({"a": HELD["b"], "w": HELD["w"]})}
    assert len(digests) == 5
    assert params_digest(dict(reversed(HELD.items()))) == params_digest(HELD)
    assert params_digest({"w": HELD["w"].T}) == params_digest({"w": HELD["w"].T.copy()})


def test_delta_and_add_are_inverse():
    after = add(HELD, STEP)
    assert all((add(HELD, delta(after, HELD))[name] == after[name]).all() for name in HELD)


def test_flatten_and_split_are_inverse():
    vector = flatten(HELD, SPEC.trainable)
    assert vector.tolist() == [*HELD["w"].reshape(-1).tolist(), *HELD["b"].tolist()]
    assert all((split(vector, SPEC.trainable)[name] == HELD[name]).all() for name in HELD)
    assert len(flatten({}, ())) == 0 and split(np.zeros(0, np.float32), ()) == {}


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"w": HELD["w"]}, "E-TENSORS"),
        ({**HELD, "x": HELD["b"]}, "E-TENSORS"),
        ({**HELD, "w": HELD["w"].T}, "E-SHAPE"),
        ({**HELD, "b": HELD["b"].astype(np.float64)}, "E-SHAPE"),
    ],
)
def test_shapes_are_checked(params, code):
    check_shapes(HELD, SPEC.trainable)
    with pytest.raises(WireError) as caught:
        check_shapes(params, SPEC.trainable)
    assert caught.value.code == code
