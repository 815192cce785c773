"""The server's step: from the model and the mean update to the next model (Reddi et al., Adaptive Federated
Optimization, 2021).

    sgd       x <- x + rate * d
    momentum  m <- momentum * m + d;                                  x <- x + rate * m
    adam      m <- b1 * m + (1 - b1) * d;  v <- b2 * v + (1 - b2) * d^2;   x <- x + rate * m / (sqrt(v) + epsilon)

Everything is float32 and elementwise, so the same inputs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coordinator.recipes.sections import Server
from wire.params import Array, Params

__all__ = ["Slots", "server_step", "slot_names"]

Slots = dict[str, Params]


def slot_names(settings: Server) -> tuple[str, ...]:
    """Returns what the optimiser remembers beside the model."""
    return {"sgd": (), "momentum": ("m",), "adam": ("m", "v")}[settings.optimiser]


def server_step(model: Params, change: Mapping[str, Array], slots: Slots, settings: Server) -> tuple[Params, Slots]:
    """Returns the next model and the next memory."""
    step = {"sgd": _sgd, "momentum": _momentum, "adam": _adam}[settings.optimiser]
    after: Slots = {name: {} for name in slot_names(settings)}
    moved: Params = {}
    for name, value in model.items():
        memory = {slot: slots[slot][name] if slot in slots else np.zeros_like(value) for slot in after}
        direction, memory = step(change[name], memory, settings)
        moved[name] = value + np.float32(settings.rate) * direction
        for slot, kept in memory.items():
            after[slot][name] = kept
    return moved, after


def _sgd(change: Array, memory: Params, settings: Server) -> tuple[Array, Params]:
    return change, memory


def _momentum(change: Array, memory: Params, settings: Server) -> tuple[Array, Params]:
    m = np.float32(settings.momentum) * memory["m"] + change
    return m, {"m": m}


def _adam(change: Array, memory: Params, settings: Server) -> tuple[Array, Params]:
    one, b1, b2 = np.float32(1), np.float32(settings.momentum), np.float32(settings.beta2)
    m = b1 * memory["m"] + (one - b1) * change
    v = b2 * memory["v"] + (one - b2) * change * change
    return m / (np.sqrt(v) + np.float32(settings.epsilon)), {"m": m, "v": v}
