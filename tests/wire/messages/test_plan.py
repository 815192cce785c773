"""Plans: every field comes back, every wrong field is named, blobs chain by the fewest bytes."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import pairwise, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.messages.golden import GOLDEN
from tests.wire.messages.samples import MADE, PLAN
from wire.errors import WireError
from wire.frame import Kind, encode_frame
from wire.messages.plan import (
    MAX_BLOBS,
    MAX_BYTES,
    MAX_ROUND,
    MAX_STAGES,
    OPTIONAL,
    BlobRef,
    Envelope,
    RoundPlan,
    decode_plan,
    encode_plan,
    shortest_path,
)
from wire.messages.train import TrainSettings

DIGEST = st.integers(0, (1 << 256) - 1).map(lambda number: f"{number:064x}")
BLOB = st.builds(BlobRef, DIGEST, st.integers(1, MAX_BYTES), st.just("") | DIGEST, DIGEST)
RATE = st.floats(0, 1)
TABLE = st.dictionaries(st.text(max_size=9), st.integers(0, 99) | st.text(max_size=5), max_size=4)
TRAIN = st.builds(
    TrainSettings,
    *(st.text(max_size=9), st.integers(0, 99), st.integers(1, 99), RATE, RATE, RATE),
    *(st.lists(TABLE, max_size=8).map(tuple), TABLE, TABLE),
)
ENVELOPE = st.builds(Envelope, st.integers(0, MAX_BYTES), st.integers(0, MAX_BYTES))
PLANS = st.builds(
    RoundPlan,
    run=st.text("abc019-", min_size=1, max_size=32),
    round=st.integers(0, MAX_ROUND),
    seed=st.integers(0, (1 << 63) - 1),
    base=DIGEST,
    initial=DIGEST,
    spec=DIGEST,
    spec_bytes=st.integers(1, 1 << 20),
    blobs=st.lists(BLOB, max_size=3).map(tuple),
    train=TRAIN,
    deadline_s=st.floats(0, 1e9),
    kind=st.sampled_from(["delta", "weights"]),
    scope=st.sampled_from(["tensor", "update"]),
    stages=st.sampled_from([(), ({"stage": "levels", "levels": 3},)]),
    envelope=ENVELOPE,
)


@given(PLANS.filter(lambda plan: "\ud800" not in plan.train.task))
def test_round_trip(plan):
    assert decode_plan(encode_plan(plan)) == plan


def test_golden_bytes():
    assert MADE["plan"]().hex() == GOLDEN["plan"]
    assert decode_plan(bytes.fromhex(GOLDEN["plan"])) == PLAN


def changed(field: str, value: object) -> bytes:
    header = asdict(PLAN)
    *path, last = field.split(".")
    place = header
    for step in path:
        place = place[step] if isinstance(place, dict) else place[int(step)]
    place[last] = value
    return encode_frame(Kind.PLAN, header)


def dropped(field: str) -> bytes:
    return encode_frame(Kind.PLAN, {name: value for name, value in asdict(PLAN).items() if name != field})


@pytest.mark.parametrize("field", sorted({*asdict(PLAN)} - {*OPTIONAL}))
def test_every_field_is_needed(field):
    with pytest.raises(WireError, match=field):
        decode_plan(dropped(field))


HEX = "0" * 64
WRONG = {
    "run": ["", "A", "a" * 33, "a/b", "a\n", 1, None, ["a"]],
    "round": [-1, MAX_ROUND + 1, 1.0, True, "1", None],
    "seed": [-1, 1 << 63, 0.5, False],
    "base": ["", HEX[1:], HEX + "0", "G" * 64, HEX.replace("0", "A"), None, HEX + "\n"],
    "initial": ["", 0],
    "spec": [HEX[1:]],
    "spec_bytes": [0, (1 << 20) + 1],
    "blobs": [{}, [1], None, [{}] * (MAX_BLOBS + 1)],
    "blobs.0.digest": ["", None],
    "blobs.0.size": [0, MAX_BYTES + 1, 1.5],
    "blobs.0.source": [None, "x"],
    "blobs.0.target": [""],
    "train": [[], None, "digits"],
    "train.task": ["x" * 201, 1],
    "train.epochs": [-1, 10_001, 1.0],
    "train.batch": [0, (1 << 20) + 1],
    "train.rate": [-0.1, 1e7, "0.1", True, 10**400],
    "train.momentum": [1.1, None],
    "train.decay": [-1],
    "deadline_s": [-1, 1e10, None, [1]],
    "kind": ["", "grads", None],
    "scope": ["", "net", []],
    "stages": [{}, ["levels"], [{}] * (MAX_STAGES + 1)],
    "train.transforms": [{}, ["qat"], [{}] * 9, None],
    "train.penalty": [[], None, {str(at): at for at in range(33)}],
    "train.personal": [[], "kd"],
    "clip": [-1, 1e10, "1", None],
    "feedback": [1, None, "yes"],
    "whole": [{}, [1], ["x" * 201], ["*"] * 65],
    "chain": [HEX[1:], None],
    "chain_bytes": [-1, (1 << 20) + 1],
    "trunk": ["G" * 64],
    "trunk_bytes": [1.5],
    "given_up": [{}, [-1], ["1"], [0] * 65],
    "envelope": [[], None],
    "envelope.memory_bytes": [-1, MAX_BYTES + 1],
    "envelope.disk_bytes": [0.5],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_wrong_fields_are_named(field, value):
    with pytest.raises(WireError, match=field.split(".")[-1]) as caught:
        decode_plan(changed(field, value))
    assert caught.value.code == "E-FRAME" and len(str(caught.value)) < 300


def test_unknown_fields_are_passed_over():
    assert decode_plan(changed("later", [1])) == PLAN


def test_a_plan_has_no_payload():
    with pytest.raises(WireError, match="payload"):
        decode_plan(encode_frame(Kind.PLAN, asdict(PLAN), b"x"))


def ref(source: str, target: str, size: int) -> BlobRef:
    return BlobRef(f"{source}>{target}", size, source, target)


REFS = st.lists(st.builds(ref, st.sampled_from(["", *"abcd"]), st.sampled_from("abcd"), st.integers(1, 9)), max_size=5)


def cheapest(refs: list[BlobRef], start: set[str], goal: str, cached: set[str]) -> int | None:
    """Returns the least cost over all orders of all subsets."""
    costs = [0] if goal in start else []
    for length in range(1, len(refs) + 1):
        for path in permutations(refs, length):
            linked = path[0].source in start and all(a.target == b.source for a, b in pairwise(path))
            if linked and path[-1].target == goal:
                costs.append(sum(0 if r.digest in cached else r.size for r in path))
    return min(costs, default=None)


@given(REFS, st.sets(st.sampled_from("abcd"), max_size=2), st.sets(st.sampled_from([">a", "a>b", "b>c"])))
def test_the_shortest_path_is_the_cheapest_and_linked(refs, held, cached):
    best = cheapest(refs, {"", *held}, "c", cached)
    if best is None:
        with pytest.raises(WireError) as caught:
            shortest_path(refs, held, "c", cached)
        assert caught.value.code == "E-BLOB"
        return
    path = shortest_path(refs, held, "c", cached)
    assert sum(0 if r.digest in cached else r.size for r in path) == best
    assert [*(r.source for r in path), "c"][0] in {"", *held}
    assert all(a.target == b.source for a, b in pairwise(path))
    assert path[-1].target == "c" if path else "c" in held


def test_what_is_cached_costs_nothing():
    refs = [ref("", "c", 5), ref("", "a", 9), ref("a", "c", 1)]
    assert shortest_path(refs, [], "c", []) == refs[:1]
    assert shortest_path(refs, [], "c", [">a"]) == refs[1:]
    assert shortest_path(refs, ["a"], "c", []) == refs[2:]
    assert shortest_path(refs, ["c"], "c", []) == []


def test_a_long_chain_is_followed_backwards_too():
    refs = [ref(str(n) if n else "", str(n + 1), 1) for n in range(MAX_BLOBS)]
    assert shortest_path(refs[::-1], [], str(MAX_BLOBS), []) == refs
    assert replace(PLAN, blobs=()).blobs == ()
