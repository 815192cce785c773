"""What the net answers in PyTorch with the weights that a file computes with: the other half of every proof."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from models.init import frozen
from models.nets import build, load
from wire.params import Array
from wire.spec import ModelSpec

__all__ = ["answering", "outputs"]


def outputs(
    spec: ModelSpec,
    params: Mapping[str, Array],
    weights: Mapping[str, Array],
    inputs: Array,
    still: Mapping[str, Array] | None = None,
    *,
    batch: int = 256,
) -> Array:
    """Returns the float32 outputs of the net of `params` and its frozen tensors, with `weights` in place of theirs."""
    return answering(spec, params, still, batch=batch)(weights, inputs)


def answering(
    spec: ModelSpec, params: Mapping[str, Array], still: Mapping[str, Array] | None = None, *, batch: int = 256
) -> Callable[[Mapping[str, Array], Array], Array]:
    """Returns `outputs` as a function of weights and inputs: the net is built once, for who asks hundreds of times."""
    own = {**params, **(frozen(spec) if still is None else still)}
    net = build(spec, {tensor.name: own[tensor.name] for tensor in spec.frozen})
    net.eval()

    def answer(weights: Mapping[str, Array], inputs: Array) -> Array:
        load(net, {**own, **weights})  # all of them: the call before left other weights
        with torch.inference_mode():
            parts = [net(torch.from_numpy(inputs[at : at + batch])).numpy() for at in range(0, len(inputs), batch)]
        return np.concatenate(parts)

    return answer
