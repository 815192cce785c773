"""Activations on a grid while training, their ranges tracked, so that integer arithmetic later meets what was trained
(Gupta et al., Quantization Robust Federated Learning, TMLR 2023, section 2; Jacob et al., CVPR 2018, on the ranges).

    unsigned (after ReLU)  Q_b(a) = s * clip(round(a / s), 0, n),   s = range / n,   n = 2^b - 1
    signed                 Q_b(a) = s * clip(round(a / s), -n, n),  s = range / n,   n = 2^(b-1) - 1

A site is the net's input, or the output of a ReLU or an average pool; max pools keep values on their grid. A site's
range is the largest |a| of its first batch, then keep * range + (1 - keep) * largest. While the net evaluates, ranges
stand still. The gradient passes straight through inside the range and is 0 beyond it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models.weights.grids import highest
from models.weights.settings import FLOAT_BITS, Activations
from wire.errors import StateError

__all__ = ["RangedActivations", "Site", "place_activations"]

_TINY = torch.finfo(torch.float32).tiny
_SITES = (nn.ReLU, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)


@dataclass(frozen=True, slots=True)
class Site:
    """The range of one place in the net, and whether anything below 0 was seen there."""

    range: float
    signed: bool


def place_activations(a: Tensor, site: Site, bits: int) -> Tensor:
    """Returns `a` on the site's grid, exactly, with the straight-through gradient inside its range."""
    most = highest(bits) if site.signed else 2**bits - 1
    least = -most if site.signed else 0
    step = max(site.range / most, _TINY)
    inside = a.clamp(least * step, most * step)
    # The bracket is exactly 0: the value is the grid's own, and only the gradient is that of `inside`.
    return (a.detach() / step).round_().clamp_(least, most).mul_(step) + (inside - inside.detach())


@dataclass(frozen=True, slots=True)
class RangedActivations:
    """Quantises activations through hooks and leaves weights alone; `sites` grows and changes as the net trains."""

    settings: Activations
    sites: dict[str, Site] = field(default_factory=dict)

    def weights(self, params: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Returns the tensors as they are; draws nothing."""
        return dict(params)

    @contextmanager
    def around(self, net: nn.Module) -> Iterator[None]:
        """Returns a context in which the net's activations are quantised; no hooks at 32 bits."""
        with ExitStack() as stack:
            if self.settings.bits != FLOAT_BITS:
                self._hook(net, stack)
            yield

    def deployed(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the tensors as they are."""
        return dict(params)

    def _hook(self, net: nn.Module, stack: ExitStack) -> None:
        def before(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (self._placed("input", given[0], net.training), *given[1:])

        def after(module: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> Tensor:
            return self._placed(sites[module], answer, net.training)

        sites: dict[nn.Module, str] = {one: name for name, one in net.named_modules() if isinstance(one, _SITES)}
        stack.callback(net.register_forward_pre_hook(before).remove)
        for module in sites:
            stack.callback(module.register_forward_hook(after).remove)

    def _placed(self, name: str, a: Tensor, training: bool) -> Tensor:
        if training:
            self.sites[name] = self._tracked(self.sites.get(name), a.detach())
        elif name not in self.sites:
            raise StateError(f"no range is known for activations {name!r}", remedy="let the net train a batch first")
        return place_activations(a, self.sites[name], self.settings.bits)

    def _tracked(self, old: Site | None, a: Tensor) -> Site:
        lowest, largest = float(a.amin()), float(a.abs().amax())
        if old is None:
            return Site(largest, lowest < 0)
        keep = self.settings.keep
        return Site(keep * old.range + (1 - keep) * largest, old.signed or lowest < 0)
