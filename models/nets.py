"""From a ModelSpec to a torch net, and parameters in and out of it.

A net's tensors must be exactly those of its spec, by name, shape and order: what travels is named by the net itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from math import prod, sqrt
from typing import Any

import numpy as np
import torch
from torch import nn

from models.archs import find_arch, tensors_of
from models.init import frozen
from models.layouts import GROUPS, RESNET_BLOCKS
from wire.errors import ConfigError
from wire.params import Array, Params
from wire.spec import ModelSpec, TensorSpec

__all__ = ["build", "dump", "listed", "load"]

Layers = list[tuple[str, nn.Module]]


def build(spec: ModelSpec, still: Mapping[str, Array] | None = None) -> nn.Module:
    """Returns the net of `spec` with its frozen tensors in place, `still` or as the spec's seed gives them; the
    trainable ones are NaN until `load`.

    The tensors are compared before the net is made, so a spec that claims anything else costs no memory.
    """
    _agree(spec, tensors_of(spec.arch, spec.input, spec.outputs))
    net = _made(spec.arch, spec.input, spec.outputs)
    _agree(spec, _shapes(net, spec.arch))
    still = frozen(spec) if still is None else still
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name not in still)
        nn.init.constant_(parameter, float("nan"))
    load(net, still)
    return net


def load(net: nn.Module, params: Mapping[str, Array]) -> None:
    """Copies `params` into the net's parameters of these names; the others stay as they are."""
    own = dict(net.named_parameters())
    for name, value in params.items():
        if name not in own or tuple(own[name].shape) != value.shape:
            raise ConfigError(
                f"tensor {name!r} of shape {value.shape} is not one of this net's",
                remedy="use the spec that the parameters were made with",
            )
        # A copy first: torch warns about read-only arrays, and what arrives in a frame is one.
        with torch.no_grad():
            own[name].copy_(torch.from_numpy(np.array(value, dtype=np.float32, order="C")))


def dump(net: nn.Module, names: Iterable[str]) -> Params:
    """Returns copies of the parameters of these names, in this order."""
    own = dict(net.named_parameters())
    wanted = tuple(names)
    missing = [name for name in wanted if name not in own]
    if missing:
        raise ConfigError(f"tensors {missing[:5]} are not in this net", remedy="use the spec that the net was made of")
    return {name: own[name].detach().to("cpu", torch.float32).numpy().copy() for name in wanted}


def listed(text: str, shape: tuple[int, ...], outputs: int) -> tuple[TensorSpec, ...]:
    """Returns the tensors of a net that does not list them itself, read off the net, made without memory.

    Two or more dimensions: He-uniform, fan_in the product of all but the first. One: a `weight` starts at 1 (it is a
    norm's scale), anything else at 0.
    """
    with torch.device("meta"):
        net = _made(text, shape, outputs)
    return tuple(_first(tensor) for tensor in _shapes(net, text))


def _first(tensor: TensorSpec) -> TensorSpec:
    if len(tensor.shape) > 1:
        return TensorSpec(tensor.name, tensor.shape, spread=sqrt(6.0 / prod(tensor.shape[1:])))
    return TensorSpec(tensor.name, tensor.shape, fill=float(tensor.name.split(".")[-1] == "weight"))


def _agree(spec: ModelSpec, tensors: Iterable[TensorSpec]) -> None:
    ours = [(tensor.name, tensor.shape) for tensor in tensors]
    still = {tensor.name for tensor in spec.frozen}
    theirs = [[(t.name, t.shape) for t in part] for part in (spec.trainable, spec.frozen)]
    split = [[pair for pair in ours if (pair[0] in still) == side] for side in (False, True)]
    if theirs != split:
        odd = sorted(set(ours) ^ {*theirs[0], *theirs[1]}) or "the order"
        raise ConfigError(
            f"the spec and the architecture {spec.arch!r} differ in {str(odd)[:200]}",
            remedy="install the same version of the architecture on both sides",
        )


def _shapes(net: nn.Module, text: str) -> tuple[TensorSpec, ...]:
    own = dict(net.named_parameters())
    wrong = [name for name, parameter in own.items() if parameter.dtype != torch.float32 or not parameter.shape]
    # Only parameters travel. A net whose state lives in buffers too would be another net on every device.
    known = dict(net.named_parameters(remove_duplicate=False))
    kept = [name for name in net.state_dict(keep_vars=True) if name not in known]
    if wrong or kept:
        raise ConfigError(
            f"architecture {text!r} keeps {(wrong + kept)[:5]}",
            remedy="use float32 parameters of at least one dimension, GroupNorm in place of BatchNorm, and"
            " persistent=False for constant buffers",
        )
    return tuple(TensorSpec(name, tuple(parameter.shape)) for name, parameter in own.items())


def _made(text: str, shape: tuple[int, ...], outputs: int) -> nn.Module:
    name, arch, args = find_arch(text)
    if name in _BUILDERS:
        # Made without memory and then given some, so that torch's own random start costs nothing.
        with torch.device("meta"):
            net = _BUILDERS[name](shape, outputs, args)
        return net.to_empty(device="cpu")
    if arch.build is None:
        raise ConfigError(f"architecture {text!r} has no net", remedy="it can be sent around, but not trained")
    try:
        made = arch.build(shape, outputs, args)
    except Exception as exc:
        raise ConfigError(f"architecture {text!r} cannot be built: {type(exc).__name__}: {exc}") from exc
    if not isinstance(made, nn.Module):
        raise ConfigError(f"architecture {text!r} builds {type(made).__name__}", remedy="return a torch.nn.Module")
    return made


def _mlp(shape: tuple[int, ...], outputs: int, args: tuple[int, ...]) -> nn.Module:
    layers: Layers = [("flatten", nn.Flatten())]
    for at, (before, after) in enumerate(pairwise((prod(shape), *args)), start=1):
        layers += [(f"fc{at}", nn.Linear(before, after)), (f"relu{at}", nn.ReLU())]
    return _chain(*layers, ("out", nn.Linear(args[-1], outputs)))


class _ByPixel(nn.Sequential):
    """Returns what its layers give, with all channels of a pixel side by side in memory while they work.

    torch pools such pictures faster: steps take 0.7 to 0.8 of the time (`scripts/bench order`). Nets of GroupNorm are
    slower so, and keep torch's usual order.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        y: torch.Tensor = super().forward(x.to(memory_format=torch.channels_last))  # type: ignore[no-untyped-call]
        return y


def _cnn(shape: tuple[int, ...], outputs: int, args: tuple[int, ...]) -> nn.Module:
    side = 2 ** len(args)
    flat = args[-1] * (shape[1] // side) * (shape[2] // side)
    convs = _convs(nn.Conv2d, nn.MaxPool2d, (shape[0], *args), 3)
    return _ByPixel(OrderedDict([*convs, _flat(), ("out", nn.Linear(flat, outputs))]))


def _leaf(shape: tuple[int, ...], outputs: int, args: tuple[int, ...]) -> nn.Module:
    flat = 64 * (shape[1] // 4) * (shape[2] // 4)
    dense = [("fc1", nn.Linear(flat, 512)), ("relu3", nn.ReLU()), ("out", nn.Linear(512, outputs))]
    convs = _convs(nn.Conv2d, nn.MaxPool2d, (shape[0], 32, 64), 5)
    return _ByPixel(OrderedDict([*convs, _flat(), *dense]))


def _cnn1d(shape: tuple[int, ...], outputs: int, args: tuple[int, ...]) -> nn.Module:
    return _chain(
        *_convs(nn.Conv1d, nn.MaxPool1d, (shape[0], *args), 5),
        ("mean", nn.AdaptiveAvgPool1d(1)),
        _flat(),
        ("out", nn.Linear(args[-1], outputs)),
    )


class _Block(nn.Module):
    """Returns relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(GROUPS, after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(GROUPS, after)
        self.relu2 = nn.ReLU()
        same = before == after
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        inner = self.relu1(self.norm1(self.conv1(x)))
        activated: torch.Tensor = self.relu2(self.norm2(self.conv2(inner)) + self.shortcut(x))
        return activated


def _resnet(shape: tuple[int, ...], outputs: int, width: int, blocks: tuple[int, ...]) -> nn.Module:
    layers = _normed("stem", nn.Conv2d(shape[0], width, 3, padding=1, bias=False))
    before = width
    for stage, count in enumerate(blocks, start=1):
        after = width * 2 ** (stage - 1)
        first = _Block(before, after, stride=1 if stage == 1 else 2)
        layers.append((f"stage{stage}", nn.Sequential(first, *(_Block(after, after, 1) for _ in range(count - 1)))))
        before = after
    return _chain(*layers, ("mean", nn.AdaptiveAvgPool2d(1)), _flat(), ("out", nn.Linear(before, outputs)))


def _mobile(shape: tuple[int, ...], outputs: int, args: tuple[int, ...]) -> nn.Module:
    layers = _normed("stem", nn.Conv2d(shape[0], args[0], 3, padding=1, bias=False))
    for at, (before, after) in enumerate(pairwise((args[0], *args)), start=1):
        layers += _normed(f"depth{at}", nn.Conv2d(before, before, 3, 2, padding=1, groups=before, bias=False))
        layers += _normed(f"point{at}", nn.Conv2d(before, after, 1, bias=False))
    return _chain(*layers, ("mean", nn.AdaptiveAvgPool2d(1)), _flat(), ("out", nn.Linear(args[-1], outputs)))


def _normed(name: str, conv: nn.Conv2d) -> Layers:
    return [(name, conv), (f"{name}_norm", nn.GroupNorm(GROUPS, conv.out_channels)), (f"{name}_relu", nn.ReLU())]


def _convs(conv: Any, pool: Any, widths: tuple[int, ...], kernel: int) -> Layers:
    layers: Layers = []
    for at, (before, after) in enumerate(pairwise(widths), start=1):
        same = conv(before, after, kernel, padding=kernel // 2)
        layers += [(f"conv{at}", same), (f"relu{at}", nn.ReLU()), (f"pool{at}", pool(2))]
    return layers


def _flat() -> tuple[str, nn.Module]:
    return ("flatten", nn.Flatten())


def _chain(*layers: tuple[str, nn.Module]) -> nn.Module:
    return nn.Sequential(OrderedDict(layers))


_BUILDERS: dict[str, Callable[[tuple[int, ...], int, tuple[int, ...]], nn.Module]] = {
    "cnn": _cnn,
    "cnn1d": _cnn1d,
    "leaf": _leaf,
    "mlp": _mlp,
    "mobile": _mobile,
    "resnet8": lambda shape, outputs, args: _resnet(shape, outputs, args[0], RESNET_BLOCKS["resnet8"]),
    "resnet18": lambda shape, outputs, args: _resnet(shape, outputs, args[0], RESNET_BLOCKS["resnet18"]),
}
