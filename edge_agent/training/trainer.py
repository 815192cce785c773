"""Local training: plain SGD with momentum over the device's own examples, the whole loop on this page.

g = grad F(w) + decay * w,   v <- momentum * v + g,   w <- w - rate * v
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from models.data import Dataset
from models.measure import measure
from models.nets import build, dump, load
from wire.bits import Bits
from wire.messages.plan import TrainSettings
from wire.params import Params
from wire.spec import ModelSpec

__all__ = ["Fit", "fit"]

_MEASURED_EXAMPLES = 2048


@dataclass(frozen=True, slots=True)
class Fit:
    """What training gave. The losses are over the same first examples before and after."""

    params: Params
    examples: int
    loss_before: float
    loss_after: float


def fit(base: Params, spec: ModelSpec, data: Dataset, settings: TrainSettings, key: tuple[object, ...]) -> Fit:
    """Returns the parameters after `settings.epochs` passes; `key` names the order of the examples."""
    net = build(spec)
    load(net, base)
    sample = Dataset(data.x[:_MEASURED_EXAMPLES], data.y[:_MEASURED_EXAMPLES])
    before = measure(net, sample)["loss"]
    _descend(net, data, settings, key)
    after = measure(net, sample)["loss"]
    return Fit(dump(net, [tensor.name for tensor in spec.trainable]), len(data), before, after)


def _descend(net: torch.nn.Module, data: Dataset, settings: TrainSettings, key: tuple[object, ...]) -> None:
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    speeds = [torch.zeros_like(weight) for weight in weights] if settings.momentum else []
    net.train()
    for x, y in _batches(data, settings, key):
        gradients = torch.autograd.grad(cross_entropy(net(x), y), weights)
        with torch.no_grad():
            _step(weights, gradients, speeds, settings)


def _step(
    weights: list[torch.nn.Parameter],
    gradients: tuple[torch.Tensor, ...],
    speeds: list[torch.Tensor],
    settings: TrainSettings,
) -> None:
    for at, weight in enumerate(weights):
        gradient = gradients[at] + settings.decay * weight if settings.decay else gradients[at]
        if speeds:
            gradient = speeds[at].mul_(settings.momentum).add_(gradient)
        weight.sub_(gradient, alpha=settings.rate)


def _batches(
    data: Dataset, settings: TrainSettings, key: tuple[object, ...]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for epoch in range(settings.epochs):
        order = Bits.of(*key, "order", epoch).permutation(len(data))
        for start in range(0, len(data), settings.batch):
            picked = order[start : start + settings.batch]
            yield torch.from_numpy(data.x[picked]), torch.from_numpy(data.y[picked])
