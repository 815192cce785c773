"""The gradient of the weights from thinned inputs (Raihan and Aamodt, SWAT, 2020; Qiu et al., ZeroFL, 2022).

    forward   o  = conv(a, w)              the whole input a
    backward  ga = conv_T(g, w)            the whole gradient g
              gw = corr(g, top(a, 1 - sparsity))

top keeps the largest magnitudes of the whole batch tensor and sets the others to 0. Only the copy of a that is stored
for gw is thinned. It stays a dense tensor with zeros in it: this reproduces the method, it saves no memory and no time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from models.weights.threshold import Threshold
from wire.errors import ConfigError

__all__ = ["sparse_backward"]

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


@contextmanager
def sparse_backward(net: nn.Module, weights: Collection[str], sparsity: float, period: int) -> Iterator[None]:
    """Makes the layers that own these weights store thinned inputs, until the context ends.

    Works for calls of `net` itself and through torch.func.functional_call. Layers that are neither Linear, Conv1d nor
    Conv2d are left alone. Each layer ranks its input anew on every `period`-th forward pass.
    """
    with ExitStack() as handles:
        for name, layer in net.named_modules():
            if isinstance(layer, _LAYERS) and f"{name}.weight".lstrip(".") in weights:
                watch = _Watch(name, Threshold(sparsity, period))
                before = layer.register_forward_pre_hook(watch.before, with_kwargs=True)
                handles.callback(before.remove)
                after = layer.register_forward_hook(watch.after, always_call=True)
                handles.callback(after.remove)
        yield


@dataclass(slots=True)
class _Watch:
    """One layer: opens the hooks on what is saved before its forward pass and closes them after it."""

    name: str
    threshold: Threshold
    pack: _Pack | None = None
    hooks: saved_tensors_hooks | None = None

    def before(self, layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], Any]:
        (source,) = (*args, *kwargs.values())
        if not (torch.is_grad_enabled() and layer.weight.requires_grad):
            return (source,), {}  # no gradient of the weights, so nothing is stored for it
        if isinstance(layer, nn.Linear):
            source = source.contiguous()  # or linear would store a copy, which could not be told from another tensor
        self.pack = _Pack(source.untyped_storage().data_ptr(), self.threshold.next(source))
        self.hooks = saved_tensors_hooks(self.pack, _same)
        self.hooks.__enter__()
        return (source,), {}

    def after(self, layer: nn.Module, args: object, output: object) -> None:
        """Closes the hooks, after a forward pass that failed as well."""
        pack, hooks, self.pack, self.hooks = self.pack, self.hooks, None, None
        if hooks is None or pack is None:
            return
        hooks.__exit__()
        if output is not None and not pack.found:
            raise ConfigError(
                f"layer {self.name!r} stores another tensor than its input, so its gradient would not be sparse",
                remedy='pad with zeros of the same width on both sides, or add the layer\'s weight to "skip"',
            )


@dataclass(slots=True)
class _Pack:
    """Called with each tensor that a layer saves: thins its input; its weight, masked by others, stays as it is."""

    address: int
    level: float
    found: bool = False

    def __call__(self, saved: Tensor) -> Tensor:
        if saved.untyped_storage().data_ptr() != self.address:
            return saved
        self.found = True
        return torch.where(saved.abs() >= self.level, saved, 0)


def _same(saved: Tensor) -> Tensor:
    return saved
