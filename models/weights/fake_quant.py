"""QAT: training sees the weights on a grid (Gupta et al., Quantization Robust Federated Learning, TMLR 2023).

    g = grad F evaluated at Q_b(w; s),   w <- w - rate * g

The gradient passes straight through the rounding to the float master weights. With the min-max step nothing is
clipped, so it is the identity; with the least-squares step it is 0 where |w| > s * (2^(b-1) - 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.weights.grids import highest, place, step_of
from models.weights.settings import FLOAT_BITS, Qat

__all__ = ["FakeQuant", "straight"]


def straight(w: Tensor, bits: int, channel: bool, rule: str) -> Tensor:
    """Returns `w` on its grid, exactly, with the straight-through gradient; `w` itself at 32 bits."""
    if bits == FLOAT_BITS:
        return w
    step = step_of(w, bits, channel, rule)
    through = w
    if rule == "lsq":
        top = step * highest(bits)
        through = w.clamp(-top, top)
    # The bracket is exactly 0: the value is the grid's own, and only the gradient is that of `through`.
    return place(w.detach(), step, bits) + (through - through.detach())


@dataclass(frozen=True, slots=True)
class FakeQuant:
    """Places the tensors in `names` on the grid of one bit-width."""

    settings: Qat
    names: tuple[str, ...]

    def weights(self, params: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Returns all tensors, those in `names` on their grids; draws nothing."""
        own = self.settings
        shaped = {name: straight(params[name], own.bits, own.grid == "channel", own.range) for name in self.names}
        return {**params, **shaped}

    def around(self, net: nn.Module) -> AbstractContextManager[None]:
        """Returns a context that does nothing."""
        return nullcontext()

    def deployed(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the master weights: whoever deploys them chooses the bit-width."""
        return dict(params)
