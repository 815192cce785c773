"""The training loop against one written in NumPy.

A net of one hidden layer, by hand, in float64:

    h = relu(x W1' + b1),   z = h W2' + b2,   p = softmax(z)
    dz = (p - onehot(y)) / n,   dW2 = dz' h,   db2 = sum dz,   dh = dz W2 * (h > 0),   dW1 = dh' x,   db1 = sum dh
    v <- momentum * v + g + decay * w,   w <- w - rate * v
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_agent.training import trainer
from edge_agent.training.trainer import fit
from models.archs import spec_of
from models.data import Dataset
from models.init import frozen, initial
from wire.bits import Bits
from wire.messages.train import TrainSettings

KEY = (3, 0, "dev-1")


def spec(freeze=()):
    return spec_of("mlp-5", (1, 2, 3), 4, 7, freeze)


def examples(count=22):
    bits = Bits.of("examples")
    x = bits.uniform(count * 6).reshape(count, 1, 2, 3) * np.float32(2) - np.float32(1)
    return Dataset(x, (bits.words(count) % np.uint64(4)).astype(np.int64))


def gradient(w, x, y):
    h = np.maximum(x @ w["fc1.weight"].T + w["fc1.bias"], 0)
    z = h @ w["out.weight"].T + w["out.bias"]
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    dz = (p - np.eye(4)[y]) / len(y)
    dh = dz @ w["out.weight"] * (h > 0)
    return {
        "fc1.weight": dh.T @ x, "fc1.bias": dh.sum(0), "out.weight": dz.T @ h, "out.bias": dz.sum(0)
    }  # fmt: skip


def loss(w, data):
    x = data.x.reshape(len(data), -1).astype(np.float64)
    z = np.maximum(x @ w["fc1.weight"].T + w["fc1.bias"], 0) @ w["out.weight"].T + w["out.bias"]
    return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(data)), data.y]))


def by_hand(start, data, settings, still=frozenset()):
    w = {name: value.astype(np.float64) for name, value in start.items()}
    v = {name: np.zeros_like(value) for name, value in w.items()}
    for epoch in range(settings.epochs):
        order = Bits.of(*KEY, "order", epoch).permutation(len(data))
        for at in range(0, len(data), settings.batch):
            picked = order[at : at + settings.batch]
            found = gradient(w, data.x[picked].reshape(len(picked), -1).astype(np.float64), data.y[picked])
            for name in w.keys() - still:
                v[name] = settings.momentum * v[name] + found[name] + settings.decay * w[name]
                w[name] = w[name] - settings.rate * v[name]
    return w


@pytest.mark.parametrize(
    "settings",
    [
        TrainSettings("t", epochs=3, batch=5, rate=0.2),
        TrainSettings("t", epochs=3, batch=5, rate=0.1, momentum=0.9),
        TrainSettings("t", epochs=3, batch=5, rate=0.2, decay=0.05),
        TrainSettings("t", epochs=2, batch=100, rate=0.1, momentum=0.5, decay=0.01),
    ],
    ids=["plain", "momentum", "decay", "all at once, in one batch"],
)
def test_equals_the_formula(settings):
    data, start = examples(), initial(spec())
    found = fit(start, spec(), data, settings, KEY)
    wanted = by_hand(start, data, settings)
    assert list(found.params) == [tensor.name for tensor in spec().trainable]
    for name, value in found.params.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, wanted[name], rtol=0, atol=2e-6, err_msg=name)
        assert np.abs(value - start[name]).max() > 1e-3, f"{name} did not move"
    assert found.examples == len(data)
    assert found.metrics["loss_before"] == pytest.approx(loss(start, data), abs=1e-5)
    assert found.metrics["loss_after"] == pytest.approx(loss(wanted, data), abs=1e-5)


def test_frozen_tensors_stay_and_have_no_gradient(monkeypatch):
    nets = []
    build = trainer.build
    monkeypatch.setattr(trainer, "build", lambda *of: nets.append(build(*of)) or nets[-1])
    still = spec(freeze=("fc1.*",))
    settings = TrainSettings("t", epochs=2, batch=5, rate=0.2, momentum=0.9, decay=0.1)
    found = fit(initial(still), still, examples(), settings, KEY)
    wanted = by_hand({**initial(still), **frozen(still)}, examples(), settings, still={"fc1.weight", "fc1.bias"})
    assert set(found.params) == {"out.weight", "out.bias"}
    for name, value in found.params.items():
        np.testing.assert_allclose(value, wanted[name], rtol=0, atol=2e-6)
    parameters = dict(nets[0].named_parameters())
    for name, value in frozen(still).items():
        assert not parameters[name].requires_grad
        assert parameters[name].grad is None
        np.testing.assert_array_equal(parameters[name].detach().numpy(), value)


def test_the_same_key_gives_the_same_bytes_and_another_key_others():
    settings = TrainSettings("t", epochs=2, batch=4, rate=0.2, momentum=0.9)
    torch.rand(7)  # a global generator that moved must not matter
    runs = [fit(initial(spec()), spec(), examples(), settings, key).params for key in (KEY, KEY, (3, 0, "dev-2"))]
    for name, value in runs[0].items():
        assert value.tobytes() == runs[1][name].tobytes()
    assert any(value.tobytes() != runs[2][name].tobytes() for name, value in runs[0].items())


def test_no_epochs_no_change():
    found = fit(initial(spec()), spec(), examples(), TrainSettings("t", epochs=0), KEY)
    assert found.metrics["loss_before"] == found.metrics["loss_after"]
    for name, value in initial(spec()).items():
        np.testing.assert_array_equal(found.params[name], value)


def test_the_base_is_left_as_it_was():
    start = initial(spec())
    fit(start, spec(), examples(), TrainSettings("t", rate=1.0), KEY)
    for name, value in initial(spec()).items():
        np.testing.assert_array_equal(start[name], value)
