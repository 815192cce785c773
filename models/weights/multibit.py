"""MQAT: one bit-width a step, out of a set (Gupta et al., Quantization Robust Federated Learning, TMLR 2023).

    b ~ Uniform(B);   g = grad F at Q_b(w; s_b(w));   w <- w - rate * g

One forward and one backward pass a step whatever the size of B; 32 in B is a step in float. `draw` says how long a
width holds: for a step, for one tensor of a step, or for all that this device does in the round.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.weights.fake_quant import straight
from models.weights.settings import Mqat

__all__ = ["Multibit", "drawn"]


def drawn(bits: Sequence[int], generator: torch.Generator) -> int:
    """Returns one of `bits`, each as likely; always draws, so that a set of one keeps the stream in step."""
    return bits[int(torch.randint(len(bits), (), generator=generator))]


@dataclass(frozen=True, slots=True)
class Multibit:
    """Places the tensors in `names` on the grid of a bit-width drawn from a set."""

    settings: Mqat
    names: tuple[str, ...]

    def weights(self, params: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Returns all tensors, those in `names` on grids of the width drawn; the same objects where that is 32."""
        own = self.settings
        widths = zip(self.names, self._widths(generator), strict=False)
        shaped = {name: straight(params[name], bits, own.grid == "channel", own.range) for name, bits in widths}
        return {**params, **shaped}

    def around(self, net: nn.Module) -> AbstractContextManager[None]:
        """Returns a context that does nothing."""
        return nullcontext()

    def deployed(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the master weights: whoever deploys them chooses the bit-width."""
        return dict(params)

    def _widths(self, generator: torch.Generator) -> Iterator[int]:
        """Yields a width for each tensor."""
        if self.settings.draw == "round":
            # The generator's seed names (seed, round, device): a draw from a fresh one is the same at every step.
            generator = torch.Generator().manual_seed(generator.initial_seed())
        bits = drawn(self.settings.bits, generator)
        while True:
            yield bits
            if self.settings.draw == "layer":
                bits = drawn(self.settings.bits, generator)
