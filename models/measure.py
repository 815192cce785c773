"""How good a net is on a dataset."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from models.data import Dataset
from wire.errors import DataError

__all__ = ["measure"]


def measure(
    net: torch.nn.Module, data: Dataset, batch: int = 512, weights: Mapping[str, torch.Tensor] | None = None
) -> dict[str, float]:
    """Returns `loss` (mean cross-entropy, in nats) and `accuracy` (share of right answers).

    With `weights` the net is called with them in place of its own parameters.
    """
    if not len(data):
        raise DataError("nothing to measure on: the dataset is empty")
    was_training = net.training
    net.eval()
    loss = right = 0.0
    with torch.inference_mode():
        for start in range(0, len(data), batch):
            x, y = torch.from_numpy(data.x[start : start + batch]), torch.from_numpy(data.y[start : start + batch])
            answer = net(x) if weights is None else functional_call(net, dict(weights), (x,))
            loss += float(cross_entropy(answer.double(), y, reduction="sum"))
            right += int((answer.argmax(1) == y).sum())
    net.train(was_training)
    return {"loss": loss / len(data), "accuracy": right / len(data)}
