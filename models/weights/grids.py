"""Uniform symmetric grids for weights (Gupta et al., Quantization Robust Federated Learning, TMLR 2023, section 2).

    Q_b(w; s) = s * clip(round(w / s), -q, q),   q = 2^(b-1) - 1

The grid is fully symmetric: it has 2^b - 1 values, 0 is one of them, and 2 bits are the ternary {-s, 0, s}. The step s
is one for a tensor, or one for each slice of dimension 0 (a channel). Two rules find it:

    minmax   s = max|w| / q                          nothing is clipped
    lsq      s = argmin |Q_b(w; s) - w|^2            alternating q <- round(w / s) and s <- <w, q> / <q, q>

The alternation only finds the minimum nearby, so it starts from several fractions of the min-max step, compared on a
sample of a long row. The min-max step itself is among the last two compared on all of it, so lsq is never worse than
minmax. Steps carry no gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from models.weights.settings import FLOAT_BITS, check_bits
from wire.errors import ConfigError

__all__ = ["highest", "place", "quantised", "step_of"]

_TINY = torch.finfo(torch.float32).tiny
_STARTS = tuple(0.93**at for at in range(21))  # down to 0.23: of 4 times the Gaussian spread, 2 bits want 0.3
_TURNS = 2
_SAMPLE = 1 << 16  # entries that the starts are compared on: enough to tell them apart


def highest(bits: int) -> int:
    """Returns q, the largest multiple of the step on the grid."""
    check_bits(bits)
    if bits == FLOAT_BITS:
        raise ConfigError(f"{bits} bits stand for float32, which has no grid", remedy="leave such weights as they are")
    return int(2 ** (bits - 1) - 1)


def step_of(w: Tensor, bits: int, channel: bool = False, rule: str = "minmax") -> Tensor:
    """Returns the step of a tensor, of a shape that broadcasts over it; never 0, so that all zeros stay zeros."""
    most = highest(bits)
    rows = w.detach().reshape(w.shape[0] if channel else 1, -1)
    step = (rows.abs().amax(1, keepdim=True) / most).clamp(min=_TINY)
    if rule == "lsq":
        step = _least_squares(rows, step, most)
    elif rule != "minmax":
        raise ConfigError(f"range = {rule!r}", remedy="choose minmax or lsq")
    return step.reshape(-1, *[1] * (w.dim() - 1))


def place(w: Tensor, step: Tensor, bits: int) -> Tensor:
    """Returns the point of the grid nearest to each weight; halves go to the even multiple."""
    return _multiples(w, step, highest(bits)).mul_(step)


def quantised(
    params: Mapping[str, Tensor], names: Iterable[str], bits: int, channel: bool = False, rule: str = "minmax"
) -> dict[str, Tensor]:
    """Returns all tensors, those in `names` on their grids; the others, and all at 32 bits, are the same objects."""
    check_bits(bits)
    placed = dict(params)
    for name in names if bits < FLOAT_BITS else ():
        weight = params[name].detach()
        placed[name] = place(weight, step_of(weight, bits, channel, rule), bits)
    return placed


def _multiples(w: Tensor, step: Tensor, most: int) -> Tensor:
    return (w / step).round_().clamp_(-most, most)


def _least_squares(rows: Tensor, widest: Tensor, most: int) -> Tensor:
    sample = rows[:, :: max(1, rows.numel() // _SAMPLE)]
    starts = widest * torch.tensor(_STARTS).reshape(-1, 1, 1)  # one layer a start
    step = _refined(rows, _best(sample, _refined(sample, starts, most), most), most)
    return _best(rows, torch.stack([widest, step]), most)


def _best(rows: Tensor, steps: Tensor, most: int) -> Tensor:
    """Returns, row by row, the step of least error among the layers of `steps`."""
    error = (_multiples(rows, steps, most).mul_(steps) - rows).square_().sum(-1, keepdim=True)
    return steps.gather(0, error.argmin(0, keepdim=True)).squeeze(0)


def _refined(rows: Tensor, step: Tensor, most: int) -> Tensor:
    """Returns the step after two turns of the alternation, none of which can make the error larger."""
    for _ in range(_TURNS):
        q = _multiples(rows, step, most)
        square = (q * q).sum(-1, keepdim=True)
        step = torch.where(square > 0, (rows * q).sum(-1, keepdim=True) / square, step).clamp(min=_TINY)
    return step
