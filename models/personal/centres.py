"""Centres: a tensor whose values are few, and how weights and centres are drawn to each other.

Ozkara, Singh, Data, Diggavi, "QuPeD: Quantized Personalization via Distillation with Applications to Federated
Learning", NeurIPS 2021, arXiv 2107.13892. With ascending centres c_1 <= ... <= c_m, q(x) the nearest one:

    R(x, c)     = 1/2 sum_i |x_i - q(x_i)|  (l1)     or     sum_i (x_i - q(x_i))^2  (l2)
    soft_c(x)   = c_1 + sum_{j>1} d_j s_j,   d_j = c_j - c_{j-1},   s_j = sigmoid(P (x - (c_j + c_{j-1}) / 2))
    prox(y)     = argmin_z 1/2 (z - y)^2 + eta lambda R(z, c)

`reach` stands for eta lambda / 2 with l1 and for eta lambda with l2, so lambda follows the paper's convention with the
1/2 (the authors' public code has none: its lambda is half of ours). The centres' step follows from differentiating
lambda R and draws a centre towards the median or the mean of its members; the public code has the other sign in l1.
Centres are always ascending.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

__all__ = [
    "centre_gradient",
    "hard",
    "initial_centres",
    "nearest",
    "packed_bytes",
    "prox",
    "soft",
    "soft_slope",
    "step_centres",
]

_FLOAT_BYTES = 4


def nearest(x: Tensor, centres: Tensor) -> Tensor:
    """Returns the place of the nearest centre of every value; halfway between two it is the lower one."""
    return torch.bucketize(x, (centres[1:] + centres[:-1]) / 2)


def hard(x: Tensor, centres: Tensor) -> Tensor:
    """Returns the nearest centre of every value."""
    return centres[nearest(x, centres)]


def soft(x: Tensor, centres: Tensor, sharpness: float) -> Tensor:
    """Returns the soft quantiser's values: a staircase from the lowest to the highest centre, steep for large P."""
    value = torch.full_like(x, float(centres[0]))
    for step, share in _stairs(x, centres, sharpness):
        value += step * share
    return value


def soft_slope(x: Tensor, centres: Tensor, sharpness: float) -> Tensor:
    """Returns d soft / d x at every value."""
    slope = torch.zeros_like(x)
    for step, share in _stairs(x, centres, sharpness):
        slope += step * sharpness * share * (1 - share)
    return slope


def centre_gradient(upstream: Tensor, x: Tensor, centres: Tensor, sharpness: float = 0.0) -> Tensor:
    """Returns the gradient of every centre, given that of the quantised values; a sharpness of 0 is the hard limit.

    Hard: the sum over the centre's members. Soft: d Q / d c_j = [j = 1] + (s_j - d_j s'_j / 2)
    - (s_{j+1} + d_{j+1} s'_{j+1} / 2). Summed in float64, one value after the other, whatever the number of threads.
    """
    flow = upstream.double().flatten()
    if not sharpness:
        places = nearest(x, centres).flatten()
        return torch.bincount(places, weights=flow, minlength=len(centres)).to(centres)
    gradient = torch.zeros(len(centres), dtype=torch.float64)
    gradient[0] = flow.sum()
    for at, (step, share) in enumerate(_stairs(x.double().flatten(), centres.double(), sharpness)):
        level, edge = flow @ share, flow @ (step * sharpness * share * (1 - share)) / 2
        gradient[at] -= level + edge
        gradient[at + 1] += level - edge
    return gradient.to(centres)


def prox(y: Tensor, centres: Tensor, reach: float, kind: str) -> Tensor:
    """Returns every value moved towards its nearest centre: by at most `reach` (l1), or by a share of the way (l2)."""
    goal = hard(y, centres)
    if kind == "l2":
        return (y + 2 * reach * goal) / (1 + 2 * reach)
    return torch.where(y > goal + reach, y - reach, torch.where(y < goal - reach, y + reach, goal))


def step_centres(centres: Tensor, x: Tensor, shift: Tensor, reach: float, kind: str) -> Tensor:
    """Returns the centres moved by `shift` (minus the rate times the gradient) and towards their members, if any.

    l1: c + shift + reach (members above - members below), where the last term ends at the median: with many members
    it would leap past it. l2: (c + shift + 2 reach sum members) / (1 + 2 reach number of members).
    """
    places = nearest(x, centres)
    moved = centres + shift
    for at in range(len(centres)):
        members = x[places == at]
        if len(members) and kind == "l2":
            moved[at] = (moved[at] + 2 * reach * members.sum()) / (1 + 2 * reach * len(members))
        elif len(members):
            moved[at] += _towards_median(centres[at], members, reach)
    return moved.sort().values


def initial_centres(weights: Tensor, count: int) -> Tensor:
    """Returns centres to start from: evenly spaced over the range; two of them are the means below zero and from it."""
    low, high = weights.min(), weights.max()
    if count == 2 and low < 0 <= high:
        return torch.stack([weights[weights < 0].mean(), weights[weights >= 0].mean()])
    return low + (high - low) * torch.linspace(0, 1, count, dtype=weights.dtype)


def packed_bytes(quantised: int, centres: int, tensors: int, full: int) -> int:
    """Returns the size of a deployed model: `quantised` values as places among `centres`, these once for each of
    `tensors`, and `full` values as float32.
    """
    bits = (centres - 1).bit_length() if centres else 0
    return (bits * quantised + 7) // 8 + _FLOAT_BYTES * (centres * tensors + full)


def _stairs(x: Tensor, centres: Tensor, sharpness: float) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (d_j, s_j) for every step from one centre to the next."""
    for low, high in pairwise(centres):
        yield high - low, torch.sigmoid(sharpness * (x - (low + high) / 2))


def _towards_median(centre: Tensor, members: Tensor, reach: float) -> Tensor:
    """Returns the way that l1 draws a centre: none where as many members lie above as below."""
    lead = int((members > centre).sum()) - int((members < centre).sum())
    # Of an even number every point between the two in the middle is a median: the nearer one is far enough.
    near = (len(members) + 1) // 2 if lead > 0 else len(members) // 2 + 1
    way = members.kthvalue(near).values - centre
    pull = torch.full_like(way, reach * lead)
    return pull.clamp(way.clamp(max=0), way.clamp(min=0))
