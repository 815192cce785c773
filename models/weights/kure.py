"""KURE: a penalty that gives weights a uniform shape (Shkolnik et al., Robust Quantization: One Model to Rule Them All,
NeurIPS 2020; in federated training: Gupta et al., Quantization Robust Federated Learning, TMLR 2023).

    penalty = strength * (1 / L) * sum_l (Kurt(w_l) - target)^2,   Kurt(w) = mean(((w - mean w) / std w)^4)

1.8 is the kurtosis of a uniform distribution (Gaussian 3, Laplace 6). With n entries and z the standardised weights,
autograd gives dKurt/dw = 4 / (n std) * (z^3 - mean(z^3) - z Kurt). The term shapes weights and does not shrink them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from models.weights.settings import Kure, check_penalty, shaped_names

__all__ = ["Penalty", "kurtosis", "kurtosis_penalty", "mean_kurtosis", "penalty_of"]

Penalty: TypeAlias = Callable[[Mapping[str, Tensor]], Tensor]

# A spread below this share of the largest weight is the rounding of float32, and its shape means nothing.
_FLAT = 1e-6


def penalty_of(table: Mapping[str, Any], frozen: Collection[str] = ()) -> Penalty | None:
    """Returns the penalty that a plan's table names, to be called with all tensors of a net; None where there is none.

    Tensors of one dimension are left out, a bias that starts at 0 has no kurtosis; and so are `frozen` ones.
    """
    settings = check_penalty(table)
    return None if settings is None else partial(_kure, settings, frozen)


def _kure(settings: Kure, frozen: Collection[str], params: Mapping[str, Tensor]) -> Tensor:
    names = shaped_names({name: tuple(weight.shape) for name, weight in params.items()}, settings.skip)
    return settings.strength * kurtosis_penalty([params[name] for name in names if name not in frozen], settings.target)


def kurtosis(w: Tensor) -> Tensor:
    """Returns the kurtosis (population, not excess) of all entries; NaN for equal entries, which have none."""
    away = w - w.mean()
    away = away / away.detach().abs().amax()  # the fourth power of a small spread is 0 in float32
    square = away * away
    return (square * square).mean() / square.mean().square()


def kurtosis_penalty(weights: Sequence[Tensor], target: float) -> Tensor:
    """Returns the mean squared distance from `target`, over the tensors that have a kurtosis; 0 where none has."""
    gaps = [(kurtosis(w) - target).square() for w in weights if not _flat(w.detach())]
    return torch.stack(gaps).mean() if gaps else torch.zeros(())


def mean_kurtosis(weights: Sequence[Tensor]) -> float | None:
    """Returns the mean kurtosis of the tensors that have one, to be logged; None where none has."""
    found = [float(kurtosis(w.detach())) for w in weights if not _flat(w.detach())]
    return sum(found) / len(found) if found else None


def _flat(w: Tensor) -> bool:
    return float(w.std(correction=0)) <= _FLAT * float(w.abs().amax())
