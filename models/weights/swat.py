"""Sparse weights and activations in training, sparse weights afterwards (Raihan and Aamodt, SWAT, NeurIPS 2020; Qiu
et al., ZeroFL, ICLR 2022).

    forward   o  = conv(a, top(w))         backward  ga = conv_T(g, top(w)),   gw = corr(g, top(a))
    update    w <- w - rate * gw           every entry of w, so that a weight outside top(w) may come back

top keeps the k = ceil((1 - sparsity) * n) largest magnitudes of one layer's tensor. As in the authors' code the exact
rank is taken on every `period`-th step, and its threshold serves in between. Dense: what `skip` names, and convolutions
of one point (the 1x1 shortcuts of a residual net). All arrays stay dense with zeros in them: nothing is saved on the
device, what is sent is.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor, nn

from models.weights.settings import Swat
from models.weights.sparse_backward import sparse_backward
from models.weights.threshold import Threshold, kept_count, threshold_of
from wire.errors import ConfigError

__all__ = ["SparseWeights"]


@dataclass(slots=True)
class SparseWeights:
    """The transform over the tensors `names`. The thresholds live as long as this object: one local training."""

    settings: Swat
    names: tuple[str, ...]
    thresholds: dict[str, Threshold] = field(default_factory=dict)

    def weights(self, params: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """See Transform. The gradient passes the mask as if it were not there."""
        return {**params, **{name: self._masked(name, params[name]) for name in self._sparse(params)}}

    def around(self, net: nn.Module) -> AbstractContextManager[None]:
        """See Transform: the sparse layers store thinned inputs."""
        names = self._sparse(dict(net.named_parameters()))
        return sparse_backward(net, names, self.settings.sparsity, self.settings.period) if names else nullcontext()

    def deployed(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See Transform: ranked exactly."""
        return {**params, **{name: self._exact(params[name]) for name in self._sparse(params)}}

    def _sparse(self, params: Mapping[str, Tensor]) -> tuple[str, ...]:
        if not self.settings.sparsity:
            return ()
        chosen = tuple(name for name in self.names if not _is_point(params[name]))
        if not chosen:
            raise ConfigError(
                f"transform 'swat' has no layer to thin: {', '.join(self.names)[:200]} are convolutions of one point",
                remedy="skip less, or drop the transform",
            )
        return chosen

    def _masked(self, name: str, weight: Tensor) -> Tensor:
        threshold = self.thresholds.setdefault(name, Threshold(self.settings.sparsity, self.settings.period))
        top = _top(weight.detach(), threshold.next(weight))
        return weight + (top - weight.detach())  # exactly top in value, with the gradient of weight

    def _exact(self, weight: Tensor) -> Tensor:
        return _top(weight, threshold_of(weight, kept_count(self.settings.sparsity, weight.numel())))


def _top(values: Tensor, level: float) -> Tensor:
    return torch.where(values.abs() >= level, values, 0)


def _is_point(weight: Tensor) -> bool:
    return weight.dim() > 2 and prod(weight.shape[2:]) == 1
