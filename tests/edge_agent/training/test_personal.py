"""Personal models beside the global one (QuPeD): limits that are exact, memory, and a federation of unequal devices."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from edge_agent.training.batches import batches
from edge_agent.training.personal import fit_personal, held_out
from edge_agent.training.recall import recall, remember
from edge_agent.training.trainer import fit
from models.archs import spec_of
from models.data import Dataset
from models.init import initial
from models.measure import measure
from models.nets import build
from models.nets import load as put
from tests.edge_agent.training.personal_runs import KEY, NOW, SPEC, below, digits, run, same, settings
from wire.messages.train import TrainSettings


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small are slower with two threads, many times so where the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plain(data, base=None, spec=SPEC):
    alone = replace(settings(), personal={})
    return fit(base or initial(spec), spec, data, alone, KEY, memory={}, still={}).params


def test_without_distillation_or_centres_everything_is_plain_training_bit_for_bit():
    found = run(distil=0.0, centres=0, local_only=True)
    train, _ = held_out(digits(), 0.2, KEY)
    wanted = plain(train)
    assert not same(wanted, initial(SPEC))
    assert same(found.params, wanted)
    assert same(below(found.memory, "personal/"), wanted)
    assert same(below(found.memory, "local/"), wanted)


@pytest.mark.parametrize("own", [{"centres": 2}, {"centres": 4, "prox": "l2"}, {"centres": 4, "sharpness": 20.0}])
def test_without_distillation_personal_is_local_bit_for_bit(own):
    memory = {}
    for number in range(3):
        found = run(memory=memory, key=(3, number, "dev-1"), distil=0.0, local_only=True, warm_rounds=1, skip=[], **own)
        memory = found.memory
    assert len(below(memory, "centres/")) == 3
    assert same(below(memory, "personal/"), below(memory, "local/"))
    assert same(below(memory, "centres/"), below(memory, "local_centres/"))
    taught = run(memory={}, distil=0.3, local_only=True, **NOW, **own).memory
    assert not same(below(taught, "personal/"), below(taught, "local/"))


@pytest.mark.parametrize("global_loss", ["kd", "ce+kd"])
def test_without_centres_it_is_plain_distillation(global_loss):
    """Two nets that teach each other, written down once more; both learn from the other as it is at that moment."""
    found = run(centres=0, distil=0.3, temperature=3.0, global_loss=global_loss)
    mine, theirs = build(SPEC), build(SPEC)
    put(mine, initial(SPEC))
    put(theirs, initial(SPEC))

    def divergence():
        wanted, given = (log_softmax(net(x) / 3.0, 1) for net in (theirs, mine))
        return 0.3 * 9.0 * kl_div(given, wanted, log_target=True, reduction="batchmean")

    speeds = {net: [torch.zeros_like(w) for w in net.parameters()] for net in (mine, theirs)}
    train, _ = held_out(digits(), 0.2, KEY)
    for x, y in batches(train, 2, 12, KEY):
        for net in (mine, theirs):
            labels = 0.7 if net is mine else float(global_loss == "ce+kd")
            loss = labels * cross_entropy(net(x), y) + divergence()
            gradients = torch.autograd.grad(loss, [*net.parameters()])
            for weight, speed, g in zip(net.parameters(), speeds[net], gradients, strict=True):
                with torch.no_grad():
                    speed.mul_(0.5).add_(g + 0.01 * weight)
                    weight.sub_(0.1 * speed)
    for name, weight in mine.named_parameters():
        np.testing.assert_allclose(found.memory[f"personal/{name}"], weight.detach().numpy(), rtol=0, atol=2e-6)
    for name, weight in theirs.named_parameters():
        np.testing.assert_allclose(found.params[name], weight.detach().numpy(), rtol=0, atol=2e-6)
    assert not same(found.params, below(found.memory, "personal/"))


def test_the_global_copy_learns_from_the_quantised_model_too():
    full, few = (run(centres=count, distil=0.3, global_loss="kd", **NOW) for count in (0, 2))
    assert not same(full.params, few.params)
    assert not same(few.params, initial(SPEC))


def test_two_rounds_with_the_memory_on_disk_are_the_same_as_without(tmp_path):
    own = {"centres": 2, "local_only": True, "distil": 0.3, **NOW}
    first = run(**own)
    remember(tmp_path, "run", 0, first.memory)
    recalled, _ = recall(tmp_path, "run", 1)
    straight, interrupted = (run(first.params, memory, (3, 1, "dev-1"), **own) for memory in (first.memory, recalled))
    assert same(straight.memory, interrupted.memory)
    assert same(straight.params, interrupted.params)
    assert straight.metrics == interrupted.metrics
    assert straight.memory["rounds"].tolist() == [2]
    forgotten = run(first.params, {}, (3, 1, "dev-1"), **own)
    assert not same(below(forgotten.memory, "personal/"), below(straight.memory, "personal/"))


def test_the_memory_is_all_that_a_round_needs():
    """Two rounds of one pass in one batch end where one round of two passes does; lambda and momentum are out of it."""
    own = {"centres": 4, "slope": 0.0, "centre_rate": 0.01, "local_only": True, **NOW}
    train = TrainSettings("digits", epochs=1, batch=100, rate=0.1, personal=own)
    base, memory = initial(SPEC), {}
    for number in range(2):
        found = fit_personal(base, SPEC, digits(), train, (3, number, "dev-1"), memory=memory)
        base, memory = found.params, found.memory
    whole = fit_personal(initial(SPEC), SPEC, digits(), replace(train, epochs=2), KEY, memory={})
    for name, values in {**whole.memory, **whole.params}.items():
        if name != "rounds":
            np.testing.assert_allclose({**memory, **base}[name], values, rtol=0, atol=1e-5, err_msg=name)


DEVICES = {
    "one-bit": {"centres": 2, "skip": []},
    "two-bit": {"centres": 4},
    "full": {"centres": 0, "local_only": True},
    "other": {"centres": 4, "arch": "mlp-24", "skip": ["first"]},
    "picture": {"centres": 2, "arch": "cnn-4-8", "skip": []},
}


def test_unequal_devices_train_one_global_model():
    base, memories = initial(SPEC), {name: {} for name in DEVICES}
    for number in range(3):
        found = {
            name: run(base, memories[name], (3, number, name), data=digits(60 * at), warm_rounds=1, **own)
            for at, (name, own) in enumerate(DEVICES.items())
        }
        memories = {name: one.memory for name, one in found.items()}
        for one in found.values():
            assert [(n, v.shape, v.dtype) for n, v in one.params.items()] == [
                (n, v.shape, v.dtype) for n, v in base.items()
            ]
            assert one.examples == 48
        base = {name: np.mean([one.params[name] for one in found.values()], 0) for name in base}
    shapes = {name: {n: v.shape for n, v in below(memory, "centres/").items()} for name, memory in memories.items()}
    assert shapes == {
        "one-bit": {"fc1.weight": (2,), "fc2.weight": (2,), "out.weight": (2,)},
        "two-bit": {"fc2.weight": (4,)},
        "full": {},
        "other": {"out.weight": (4,)},
        "picture": {"conv1.weight": (2,), "conv2.weight": (2,), "out.weight": (2,)},
    }
    assert set(below(memories["picture"], "personal/")) == {
        t.name for t in spec_of("cnn-4-8", (1, 8, 8), 10, 7).trainable
    }
    sizes = {name: one.metrics["personal_bytes"] for name, one in found.items()}
    assert sizes["one-bit"] == (64 * 16 + 16 * 16 + 16 * 10) // 8 + 4 * 2 * 3 + 4 * (16 + 16 + 10)
    assert sizes["full"] == 4 * SPEC.count
    for name, one in found.items():
        wanted = {"loss_before", "loss_after", "accuracy_personal", "accuracy_global", "held_out", "personal_bytes"}
        wanted |= {"accuracy_local"} if name == "full" else {"distance"}
        assert set(one.metrics) == wanted
        assert all(type(value) is float and isfinite(value) for value in one.metrics.values())
        assert one.metrics["held_out"] == 12


def test_another_architecture_starts_from_its_own_seed():
    base, still = {name: values + 1 for name, values in initial(SPEC).items()}, replace(settings(), epochs=0)
    for arch, start in (("mlp-24", initial(spec_of("mlp-24", (1, 8, 8), 10, 7))), ("mlp-16-16", base), ("", base)):
        found = fit_personal(base, SPEC, digits(), replace(still, personal={"arch": arch}), KEY, memory={})
        assert same(below(found.memory, "personal/"), start), "the same architecture starts from the global model"


def test_warm_start_then_centres_then_frozen():
    memory, seen = {}, []
    for number in range(8):
        found = run(memory=memory, key=(3, number, "dev-1"), warm_rounds=2, freeze_round=6, skip=["first"], slope=0.5)
        memory = found.memory
        seen.append(found)
    assert [len(below(one.memory, "centres/")) for one in seen] == [0, 0, 2, 2, 2, 2, 2, 2]
    assert [one.metrics["personal_bytes"] < 4 * SPEC.count for one in seen] == [False] * 2 + [True] * 6
    away = [one.metrics["distance"] for one in seen[2:]]
    assert away[0] > away[1] > away[3] > 0, "lambda grows and draws the weights to their centres"
    assert away[4:] == [0.0, 0.0]
    six, seven = seen[6].memory, seen[7].memory
    for name in ("fc2.weight", "out.weight"):
        assert len(np.unique(six[f"personal/{name}"])) <= 4
        assert np.isin(six[f"personal/{name}"], six[f"centres/{name}"]).all()
        np.testing.assert_array_equal(six[f"personal/{name}"], seven[f"personal/{name}"])
        np.testing.assert_array_equal(six[f"centres/{name}"], seven[f"centres/{name}"])
    for name in ("fc1.weight", "fc1.bias", "fc2.bias", "out.bias"):
        assert not np.array_equal(six[f"personal/{name}"], seven[f"personal/{name}"])


def test_frozen_tensors_of_the_global_model_stay_and_are_not_quantised():
    still = spec_of("mlp-16-16", (1, 8, 8), 10, 7, ("fc1.*",))
    found = run(spec=still, centres=2, **NOW)
    assert set(found.params) == set(below(found.memory, "personal/")) == {t.name for t in still.trainable}
    assert set(below(found.memory, "centres/")) == {"fc2.weight", "out.weight"}


def test_the_held_out_examples_are_the_same_in_every_round_and_never_trained_on():
    data = digits()
    for share, count in ((0.2, 12), (0.0, 0), (0.001, 1), (0.9, 54)):
        train, held = held_out(data, share, KEY)
        assert (len(train), len(held)) == (60 - count, count)
        both = np.sort(np.concatenate([train.x, held.x]).reshape(60, -1), axis=0)
        np.testing.assert_array_equal(both, np.sort(data.x.reshape(60, -1), axis=0))
    again, other = held_out(data, 0.2, (3, 5, "dev-1"))[1], held_out(data, 0.2, (3, 0, "dev-2"))[1]
    np.testing.assert_array_equal(held_out(data, 0.2, KEY)[1].x, again.x)
    assert not np.array_equal(again.x, other.x)
    train, held = held_out(data, 0.2, KEY)
    spoilt = Dataset(np.concatenate([train.x, held.x * 0]), np.concatenate([train.y, held.y]))
    assert same(run(data=Dataset(train.x, train.y), held_out=0.0).memory, run(data=data).memory)
    assert not same(run(data=spoilt, held_out=0.0).memory, run(data=data).memory)


def test_what_was_not_measured_is_left_out():
    one = run(data=digits(count=1))
    assert one.examples == 1
    assert set(one.metrics) == {"loss_before", "loss_after", "held_out", "personal_bytes"}


def test_the_same_key_gives_the_same_bytes_and_leaves_the_inputs_alone():
    base, memory = initial(SPEC), run(centres=2, **NOW).memory
    copies = {name: values.copy() for name, values in {**base, **memory}.items()}
    torch.rand(7)  # a global generator that moved must not matter
    one, two, other = (run(base, memory, key, centres=2, **NOW) for key in ((3, 1, "a"), (3, 1, "a"), (3, 1, "b")))
    assert same(one.params, two.params)
    assert same(one.memory, two.memory)
    assert not same(one.params, other.params)
    assert same({**base, **memory}, copies)


@pytest.mark.parametrize("sharpness", [0.0, 20.0])
def test_what_is_measured_is_the_deployed_model(sharpness):
    """The accuracy of a 1-bit model is that of its two values a tensor, not of the weights behind them."""
    data = digits(count=400)
    found = run(data=data, centres=2, slope=0.0, held_out=0.5, sharpness=sharpness, **NOW)
    _, held = held_out(data, 0.5, KEY)
    net = build(SPEC)
    put(net, below(found.memory, "personal/"))
    latent = measure(net, held)["accuracy"]
    for name, centres in below(found.memory, "centres/").items():
        away = np.abs(found.memory[f"personal/{name}"][..., None] - centres)
        put(net, {name: centres[away.argmin(-1)]})
    assert found.metrics["accuracy_personal"] == measure(net, held)["accuracy"]
    assert found.metrics["accuracy_personal"] != latent
    put(net, initial(SPEC))
    assert found.metrics["accuracy_global"] == measure(net, held)["accuracy"], "the received model, not the trained one"


def test_once_frozen_nothing_is_soft_any_more():
    own = {"warm_rounds": 1, "freeze_round": 1, "skip": [], "global_loss": "kd"}
    memory = run(**own).memory
    one, two = (run(memory=memory, key=(3, 1, "dev-1"), sharpness=sharpness, **own) for sharpness in (0.0, 3.0))
    assert same(one.memory, two.memory)
    assert same(one.params, two.params)


def test_the_personal_rate_is_the_personal_models_alone():
    slow, fast = (run(centres=0, distil=0.0, rate=rate) for rate in (0.01, 0.0))
    assert same(slow.params, fast.params)
    moved = [
        sum(np.abs(v - initial(SPEC)[n]).sum() for n, v in below(one.memory, "personal/").items())
        for one in (slow, fast)
    ]
    assert 0 < moved[0] < moved[1] / 2
