"""The server's steps against the formulas of Reddi et al., 2021, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.learning.optimiser import server_step, slot_names
from coordinator.recipes.sections import Server
from wire.bits import Bits

STEPS = 6


def draws(name, count):
    bits = Bits.of("optimiser", name)
    return [
        {"w": bits.uniform(30) - np.float32(0.5), "b": bits.uniform(6).reshape(2, 3) - np.float32(0.5)}
        for _ in range(count)
    ]


def ran(settings):
    (model,), slots = draws("model", 1), {}
    for change in draws("changes", STEPS):
        model, slots = server_step(model, change, slots, settings)
    return model, slots


def by_hand(settings):
    (model,) = draws("model", 1)
    x = {name: value.astype(np.float64) for name, value in model.items()}
    m = {name: np.zeros_like(value) for name, value in x.items()}
    v = {name: np.zeros_like(value) for name, value in x.items()}
    for change in draws("changes", STEPS):
        for name, d in change.items():
            if settings.optimiser == "sgd":
                x[name] += settings.rate * d
            elif settings.optimiser == "momentum":
                m[name] = settings.momentum * m[name] + d
                x[name] += settings.rate * m[name]
            else:
                m[name] = settings.momentum * m[name] + (1 - settings.momentum) * d
                v[name] = settings.beta2 * v[name] + (1 - settings.beta2) * d.astype(np.float64) ** 2
                x[name] += settings.rate * m[name] / (np.sqrt(v[name]) + settings.epsilon)
    return x, {"m": m, "v": v}


@pytest.mark.parametrize(
    "settings",
    [
        Server("sgd", rate=0.3),
        Server("momentum", rate=0.5, momentum=0.8),
        Server("adam", rate=0.05),
        Server("adam", rate=0.05, momentum=0.5, beta2=0.9, epsilon=0.1),
    ],
    ids=lambda settings: settings.optimiser,
)
def test_equals_the_formula(settings):
    (model, slots), (wanted, memory) = ran(settings), by_hand(settings)
    for name, value in model.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, wanted[name], atol=2e-6)
    assert tuple(slots) == slot_names(settings)
    for slot, kept in slots.items():
        for name, value in kept.items():
            assert value.dtype == np.float32
            np.testing.assert_allclose(value, memory[slot][name], atol=1e-6)


def test_sgd_at_rate_one_is_federated_averaging():
    (model,), (change,) = draws("model", 1), draws("changes", 1)
    after, slots = server_step(model, change, {}, Server())
    for name, value in model.items():
        np.testing.assert_array_equal(after[name], value + change[name])
    assert slots == {}


@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "adam"])
def test_the_same_inputs_give_the_same_bytes_and_are_left_alone(optimiser):
    (model,), (change,) = draws("model", 1), draws("changes", 1)
    _, slots = server_step(model, change, {}, Server(optimiser))
    kept = {slot: {name: value.tobytes() for name, value in held.items()} for slot, held in slots.items()}
    first, second = (server_step(model, change, slots, Server(optimiser)) for _ in range(2))
    assert [value.tobytes() for value in first[0].values()] == [value.tobytes() for value in second[0].values()]
    assert kept == {slot: {name: value.tobytes() for name, value in held.items()} for slot, held in slots.items()}
    assert model["w"].tobytes() == draws("model", 1)[0]["w"].tobytes()


def test_adam_moves_each_value_by_about_the_rate_whatever_its_scale():
    model = {"w": np.zeros(3, np.float32)}
    change = {"w": np.array([1e-2, 1.0, 100.0], np.float32)}
    settings, slots = Server("adam", rate=0.1, epsilon=1e-8), {}
    for _ in range(200):
        model, slots = server_step(model, change, slots, settings)
    np.testing.assert_allclose(model["w"] / model["w"][1], 1.0, rtol=1e-3)
