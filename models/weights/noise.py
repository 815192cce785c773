"""APQN: noise in place of rounding (Gupta et al., Quantization Robust Federated Learning, TMLR 2023;
the same device as in Defossez et al., Differentiable Model Compression via Pseudo Quantization Noise, 2021: DiffQ).

    w~ = w + s_b * u,   u ~ U[-1/2, 1/2) fresh at every step,   g = grad F at w~, applied to the clean w

Rounding to step s errs by about that much. s_b is a constant for the gradient. Of several widths one is drawn a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.weights.grids import step_of
from models.weights.multibit import drawn
from models.weights.settings import FLOAT_BITS, Apqn

__all__ = ["Noise"]


@dataclass(frozen=True, slots=True)
class Noise:
    """Adds noise of one step's width to the tensors in `names`."""

    settings: Apqn
    names: tuple[str, ...]

    def weights(self, params: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Returns all tensors, those in `names` with fresh noise."""
        bits = drawn(self.settings.bits, generator)
        if bits == FLOAT_BITS:
            return dict(params)
        return {**params, **{name: self._noisy(params[name], bits, generator) for name in self.names}}

    def around(self, net: nn.Module) -> AbstractContextManager[None]:
        """Returns a context that does nothing."""
        return nullcontext()

    def deployed(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the master weights, without noise."""
        return dict(params)

    def _noisy(self, w: Tensor, bits: int, generator: torch.Generator) -> Tensor:
        step = step_of(w, bits, self.settings.grid == "channel", self.settings.range)
        noise = torch.rand(w.shape, generator=generator, dtype=w.dtype).sub_(0.5).mul_(step)
        return w + noise
