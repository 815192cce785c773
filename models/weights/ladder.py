"""How good a model is as it is deployed: under its masks, and with its weights on the grid of every bit-width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from models.data import Dataset
from models.measure import measure
from models.weights.grids import quantised
from models.weights.settings import shaped_names
from models.weights.transform import transforms_of

__all__ = ["accuracy_by_bits", "assess"]


def assess(  # noqa: PLR0917 - what the coordinator asks, part by part
    net: nn.Module,
    data: Dataset,
    transforms: Sequence[Mapping[str, Any]] = (),
    bits: Sequence[int] = (),
    channel: bool = False,
    rule: str = "minmax",
) -> dict[str, Any]:
    """Returns `loss` and `accuracy` of the net as its transforms deploy it, and what else is asked for.

    `accuracy_unmasked` is there where a transform changes what is deployed, `accuracy_by_bits` where `bits` are given.
    """
    own = _weights(net)
    names = shaped_names({name: tuple(weight.shape) for name, weight in own.items()})
    deployed = own
    for transform in transforms_of(transforms, names):
        deployed = transform.deployed(deployed)
    figures: dict[str, Any] = measure(net, data, weights=deployed)
    if any(deployed[name] is not own[name] for name in own):
        figures["accuracy_unmasked"] = measure(net, data)["accuracy"]
    if bits:
        figures["accuracy_by_bits"] = accuracy_by_bits(net, deployed, data, bits, channel=channel, rule=rule)
    return figures


def accuracy_by_bits(
    net: nn.Module,
    params: Mapping[str, Tensor],
    data: Dataset,
    bits: Iterable[int],
    *,
    channel: bool = False,
    rule: str = "minmax",
    skip: Sequence[str] = (),
) -> dict[str, float]:
    """Returns the accuracy at each bit-width, by its text: {"32": 0.96, "4": 0.95}; the net stays as it is.

    `params` stand in for the net's own. All tensors of two or more dimensions are placed, frozen ones too, less those
    that `skip` names; activations stay in float.
    """
    weights = {**_weights(net), **params}
    names = shaped_names({name: tuple(weight.shape) for name, weight in weights.items()}, skip)
    return {
        str(width): measure(net, data, weights=quantised(weights, names, width, channel, rule))["accuracy"]
        for width in bits
    }


def _weights(net: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in net.named_parameters()}
