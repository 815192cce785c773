"""Local training: SGD with momentum over the device's own examples, the whole loop on this page.

    g = grad [F(T(w)) + R(w)] + decay * w,   v <- momentum * v + g,   w <- w - rate * v

T are the plan's weight transforms (models/weights), R its penalty (models/weights/kure). The net is called with T(w) in
place of its parameters, so the master weights w stay float and their quantised or masked values never overwrite them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from edge_agent.training.batches import batches
from edge_agent.training.fit import Fit
from models.data import Dataset
from models.measure import measure
from models.nets import build, dump, load
from models.weights.kure import Penalty, penalty_of
from models.weights.settings import shaped_names
from models.weights.transform import Transform, transforms_of
from wire.bits import key_of
from wire.messages.train import TrainSettings
from wire.params import Array, Params
from wire.spec import ModelSpec

__all__ = ["fit"]

_MEASURED_EXAMPLES = 256
_SEED_BITS = (1 << 63) - 1


def fit(
    base: Params,
    spec: ModelSpec,
    data: Dataset,
    settings: TrainSettings,
    key: tuple[object, ...],
    *,
    memory: Mapping[str, Array] | None = None,
    still: Mapping[str, Array] | None = None,
) -> Fit:
    """Returns the parameters after `settings.epochs` passes; `key` names every random choice, `still` is frozen."""
    if settings.personal:
        from edge_agent.training.personal import fit_personal  # noqa: PLC0415

        return fit_personal(base, spec, data, settings, key, memory=memory or {})
    net = build(spec, still)
    load(net, base)
    sample = data.spread(_MEASURED_EXAMPLES)
    shapes = {name: tuple(weight.shape) for name, weight in net.named_parameters()}
    transforms = transforms_of(settings.transforms, shaped_names(shapes))
    before = _loss(net, transforms, sample)
    _descend(net, transforms, data, settings, key)
    metrics = {"loss_before": before, "loss_after": _loss(net, transforms, sample)}
    return Fit(dump(net, [tensor.name for tensor in spec.trainable]), len(data), metrics)


@dataclass(frozen=True, slots=True)
class _Objective:
    """F(T(w)) + R(w) of one net; `own` are its parameters by name."""

    net: torch.nn.Module
    own: Mapping[str, torch.Tensor]
    transforms: Sequence[Transform]
    penalty: Penalty | None
    generator: torch.Generator

    def __call__(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Returns the loss of one batch."""
        shaped = self.own
        for transform in self.transforms:
            shaped = transform.weights(shaped, self.generator)
        loss = cross_entropy(functional_call(self.net, dict(shaped), (x,)) if self.transforms else self.net(x), y)
        if self.penalty is None:
            return loss
        return loss + self.penalty(self.own)


def _descend(
    net: torch.nn.Module,
    transforms: Sequence[Transform],
    data: Dataset,
    settings: TrainSettings,
    key: tuple[object, ...],
) -> None:
    own = dict(net.named_parameters())
    weights = [weight for weight in own.values() if weight.requires_grad]
    if not weights:
        return
    speeds = [torch.zeros_like(weight) for weight in weights] if settings.momentum else []
    generator = torch.Generator().manual_seed(key_of(*key, "transform") & _SEED_BITS)
    frozen = {name for name, weight in own.items() if not weight.requires_grad}
    objective = _Objective(net, own, transforms, penalty_of(settings.penalty, frozen), generator)
    net.train()
    with ExitStack() as hooks:
        for transform in transforms:
            hooks.enter_context(transform.around(net))
        for x, y in batches(data, settings.epochs, settings.batch, key):
            gradients = torch.autograd.grad(objective(x, y), weights)
            with torch.no_grad():
                _step(weights, gradients, speeds, settings)


def _step(
    weights: Sequence[torch.Tensor],
    gradients: Sequence[torch.Tensor],
    speeds: Sequence[torch.Tensor],
    settings: TrainSettings,
) -> None:
    for at, weight in enumerate(weights):
        gradient = gradients[at] + settings.decay * weight if settings.decay else gradients[at]
        if speeds:
            gradient = speeds[at].mul_(settings.momentum).add_(gradient)
        weight.sub_(gradient, alpha=settings.rate)


def _loss(net: torch.nn.Module, transforms: Sequence[Transform], sample: Dataset) -> float:
    """Returns the loss of the net as it is deployed: a net trained under masks is measured under them."""
    deployed: Mapping[str, torch.Tensor] = {name: weight.detach() for name, weight in net.named_parameters()}
    for transform in transforms:
        deployed = transform.deployed(deployed)
    return measure(net, sample, weights=deployed if transforms else None)["loss"]
