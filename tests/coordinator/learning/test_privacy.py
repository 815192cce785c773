"""The private mean: who can move it by how much, and that its noise is what it says (FedPT, claim 11)."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from coordinator.learning.mean import Mean
from coordinator.learning.optimiser import server_step
from coordinator.learning.privacy import noise_of, private_mean, tree_nodes
from coordinator.recipes.sections import Privacy, Server
from wire.bits import Bits
from wire.errors import StateError
from wire.params import add, clipped
from wire.spec import TensorSpec

SECRET = bytes(range(32))
FULL = tuple(TensorSpec(n, s) for n, s in (("w1", (64, 256)), ("w2", (256, 256)), ("w3", (256, 10)), ("b", (522,))))
TRAINABLE = tuple(tensor for tensor in FULL if tensor.name != "w2")
CLIP, GOAL, STEPS = 0.5, 10, 16


def update(number, scale=1.0):
    bits = Bits.of("privacy", number)
    return {"w": (bits.uniform(40) - np.float32(0.5)) * np.float32(scale), "b": bits.uniform(6).reshape(2, 3)}


def summed(updates, clip=CLIP):
    mean = Mean()
    for one in updates:
        mean.fold(clipped(one, clip), 1.0)
    return mean.sums


def length(params):
    return math.sqrt(sum(float(np.square(values, dtype=np.float64).sum()) for values in params.values()))


def apart(one, two):
    return length({name: one[name] - two[name] for name in one})


def noise(step, mechanism="gaussian", order=TRAINABLE, secret=SECRET, run="run", z=2.0):
    return noise_of(order, Privacy(CLIP, z, mechanism), secret, run, step, GOAL)


def opposite(one, scale):
    return {name: values * np.float32(-scale) for name, values in one.items()}


def test_the_norm_is_over_exactly_the_tensors_given():
    one = update(1)
    frozen = {**one, "frozen": np.full(10, 1e6, np.float32)}
    assert length(clipped(one, CLIP)) == pytest.approx(CLIP, rel=1e-6)
    assert length({name: clipped(frozen, CLIP)[name] for name in one}) < 1e-3  # a frozen tensor would eat up the clip
    short = opposite(one, 0.01)
    np.testing.assert_array_equal(clipped(short, CLIP)["w"], short["w"])


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e30])
def test_one_device_moves_the_sum_by_at_most_the_clip_and_one_replaced_by_at_most_twice(scale):
    others = [update(number) for number in range(5)]
    mine, yours = update(9, scale), opposite(update(9, scale), 3.0)
    with_me, with_you, without = summed([*others, mine]), summed([*others, yours]), summed(others)
    assert apart(with_me, without) == pytest.approx(CLIP, rel=1e-6)
    assert apart(with_me, with_you) == pytest.approx(2 * CLIP, rel=1e-6)  # the worst case is reached, not passed


def test_the_denominator_is_fixed_and_the_noise_is_added_once():
    sums = summed([update(1), update(2)])
    order = (TensorSpec("w", (40,)), TensorSpec("b", (2, 3)))
    drawn = noise(1, order=order)
    found = private_mean(sums, drawn, GOAL)
    for name, total in sums.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], (total / GOAL + drawn[name]).astype(np.float32))
    np.testing.assert_array_equal(private_mean(sums, {}, GOAL)["w"], (sums["w"] / GOAL).astype(np.float32))


def test_the_noise_is_that_of_a_by_hand_draw():
    """SHAKE-256 over the parts with their lengths, 53 bits a word, Box and Muller: by the standard library alone."""
    texts = [SECRET, b"gaussian", b"run", b"7", b"b"]
    name = b"".join(len(text).to_bytes(8, "little") + text for text in texts)
    raw = hashlib.shake_256(name).digest(8 * 522)
    u = [(int.from_bytes(raw[at : at + 8], "little") >> 11) / 2**53 for at in range(0, len(raw), 8)]
    pairs = [(math.sqrt(-2 * math.log(1 - a)), 2 * math.pi * b) for a, b in zip(u[:261], u[261:], strict=True)]
    wanted = [r * math.cos(t) for r, t in pairs] + [r * math.sin(t) for r, t in pairs]
    np.testing.assert_allclose(noise(7)["b"], np.array(wanted) * 2.0 * CLIP / GOAL, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("mechanism", ["gaussian", "tree"])
def test_the_same_name_gives_the_same_noise_and_any_other_name_another(mechanism):
    first = noise(3, mechanism)
    np.testing.assert_array_equal(first["w1"], noise(3, mechanism)["w1"])
    others = [noise(8, mechanism), noise(3, mechanism, secret=SECRET[::-1]), noise(3, mechanism, run="run2")]
    kinds = [first["w1"], *(other["w1"] for other in others), first["b"], first["w3"]]
    for at, one in enumerate(kinds):
        for two in kinds[at + 1 :]:
            size = min(one.size, two.size)
            assert abs(np.corrcoef(one.reshape(-1)[:size], two.reshape(-1)[:size])[0, 1]) < 5 / math.sqrt(size)


@pytest.mark.parametrize("z", [0.5, 1.0, 4.0])
def test_each_value_is_normal_with_standard_deviation_z_c_over_m(z):
    values = noise(1, order=FULL, z=z)["w2"].reshape(-1) / (z * CLIP / GOAL)
    assert values.std() == pytest.approx(1.0, rel=0.02)
    assert abs(values.mean()) < 0.02
    for within, share in ((0.5, 0.3829), (1, 0.6827), (2, 0.9545), (3, 0.9973)):
        assert (np.abs(values) < within).mean() == pytest.approx(share, abs=0.01)
    half = values.size // 2  # the two values of a draw are independent
    assert abs(np.corrcoef(values[:half], values[half:])[0, 1]) < 0.02


def test_freezing_shortens_the_noise_by_the_root_of_the_share():
    parameters, trainable = (sum(tensor.count for tensor in order) for order in (FULL, TRAINABLE))
    assert (parameters, trainable) == (85_002, 19_466)
    ratio = length(noise(1, order=FULL)) / length(noise(1))
    assert ratio == pytest.approx(math.sqrt(parameters / trainable), rel=0.02)
    assert length(noise(1)) == pytest.approx(2.0 * CLIP * math.sqrt(trainable) / GOAL, rel=0.02)


def covering(step):
    """The nodes that cover 1..step, largest first: what a binary counter holds."""
    nodes, done = set(), 0
    for level in reversed(range(step.bit_length())):
        if step >> level & 1:
            nodes.add((level, done >> level))
            done += 1 << level
    return nodes


def test_the_nodes_held_after_a_step_cover_each_step_so_far_once():
    held = {}
    for step in range(1, 130):
        for node, sign in tree_nodes(step).items():
            held[node] = held.get(node, 0) + sign
        now = {node for node, count in held.items() if count}
        assert {held[node] for node in now} == {1}
        assert now == covering(step)
        assert len(now) == step.bit_count()
        steps = [at for level, index in now for at in range((index << level) + 1, ((index + 1) << level) + 1)]
        assert sorted(steps) == list(range(1, step + 1))


def test_the_sum_of_the_tree_s_increments_has_one_noise_for_each_node_and_shares_them():
    order, z = (TensorSpec("w", (20_000,)),), 2.0
    increments = [noise(step, "tree", order=order, z=z)["w"] for step in range(1, STEPS + 1)]
    prefixes = np.cumsum(np.stack(increments).astype(np.float64), axis=0) / (z * CLIP / GOAL)
    found = prefixes @ prefixes.T / prefixes.shape[1]
    steps = range(1, STEPS + 1)
    wanted = np.array([[len(covering(a) & covering(b)) for b in steps] for a in steps])
    np.testing.assert_allclose(found, wanted, atol=0.12)


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_heavy_ball_on_the_noised_increments_is_dp_ftrl(beta):
    """w_(r+1) = w_0 - eta v_r,  v_r = beta v_(r-1) + (S_r + n_r), done directly in float64."""
    order, eta = (TensorSpec("w", (50,)),), 0.3
    model = {"w": Bits.of("start").uniform(50)}
    start, slots, server = model["w"].astype(np.float64), {}, Server("momentum", rate=eta, momentum=beta)
    v = total = n = np.zeros(50)
    for step in range(1, STEPS + 1):
        sums = {"w": 10 * (Bits.of("gradient", step).uniform(50).astype(np.float64) - 0.5)}
        drawn = noise(step, "tree", order=order)
        model, slots = server_step(model, private_mean(sums, drawn, GOAL), slots, server)
        total, n = total - sums["w"] / GOAL, n - drawn["w"].astype(np.float64)
        v = beta * v + (total + n)
        np.testing.assert_allclose(model["w"], start - eta * v, atol=2e-5)


def test_no_noise_in_the_recipe_needs_no_secret():
    assert noise_of(TRAINABLE, Privacy(CLIP), b"", "run", 0, GOAL) == {}


def test_noise_that_anyone_could_take_away_is_refused():
    with pytest.raises(StateError, match="secret of 0 bytes"):
        noise(1, secret=b"")
    with pytest.raises(StateError, match="mean over 0 devices"):
        noise_of(TRAINABLE, Privacy(CLIP, 1.0), SECRET, "run", 1, 0)


def test_the_tree_counts_its_steps_from_one():
    with pytest.raises(StateError, match="step 0 of the noise tree"):
        noise(0, "tree")


def test_adding_noise_keeps_the_shapes():
    assert {name: values.shape for name, values in add(noise(1), noise(2)).items()} == {
        t.name: t.shape for t in TRAINABLE
    }
