"""The device's examples in the order of one round's training."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from models.data import Dataset
from wire.bits import Bits

__all__ = ["batches"]


def batches(
    data: Dataset, epochs: int, batch: int, key: tuple[object, ...]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields inputs and labels; each epoch is a new order, named by `key` and the epoch."""
    for epoch in range(epochs):
        order = Bits.of(*key, "order", epoch).permutation(len(data))
        for start in range(0, len(data), batch):
            picked = order[start : start + batch]
            yield torch.from_numpy(data.x[picked]), torch.from_numpy(data.y[picked])
