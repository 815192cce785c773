"""The tensors of the built-in architectures, without torch: name, shape and first values, in the net's own order.

Weights start He-uniform: U(-s, s) with s = sqrt(6 / fan_in). Biases start at 0, norm scales at 1.
`conv`, `dense` and `norm` serve a user's own architecture as well.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod, sqrt

from wire.errors import ConfigError
from wire.spec import TensorSpec

__all__ = [
    "GROUPS",
    "RESNET_BLOCKS",
    "Tensors",
    "cnn",
    "cnn1d",
    "conv",
    "dense",
    "leaf",
    "mlp",
    "mobile",
    "norm",
    "resnet8",
    "resnet18",
    "sides_of",
    "vector",
]

Tensors = tuple[TensorSpec, ...]

GROUPS = 8
"""Groups of every GroupNorm, so widths are multiples of 8."""

RESNET_BLOCKS = {"resnet8": (1, 1, 1), "resnet18": (2, 2, 2, 2)}
"""Residual blocks in each stage; a stage is twice as wide as the one before and, after the first, half the side."""


def dense(name: str, inputs: int, outputs: int) -> Tensors:
    """Returns the tensors of torch.nn.Linear(inputs, outputs)."""
    return _weighted(name, (outputs, inputs))


def conv(name: str, inputs: int, outputs: int, *kernel: int, bias: bool = True) -> Tensors:
    """Returns the tensors of torch.nn.Conv1d or Conv2d; `inputs` are those of one group, `kernel` has all its sides."""
    return _weighted(name, (outputs, inputs, *kernel), bias)


def norm(name: str, channels: int) -> Tensors:
    """Returns the tensors of torch.nn.GroupNorm or LayerNorm over `channels`."""
    return (TensorSpec(f"{name}.weight", (channels,), fill=1.0), TensorSpec(f"{name}.bias", (channels,)))


def mlp(shape: tuple[int, ...], outputs: int, args: tuple[int, ...]) -> Tensors:
    """Returns dense layers fc1, fc2, ... of the widths in `args`, and out; the input is flattened."""
    widths = (prod(shape), *args)
    hidden = [dense(f"fc{at}", widths[at - 1], widths[at]) for at in range(1, len(widths))]
    return _joined(*hidden, dense("out", widths[-1], outputs))


def cnn(shape: tuple[int, ...], outputs: int, args: tuple[int, ...]) -> Tensors:
    """Returns 3x3 convolutions conv1, conv2, ... of the widths in `args`, each pooled 2x2, and out."""
    channels, height, width = sides_of(shape, 3, 2 ** len(args))
    side = 2 ** len(args)
    convs = _chain(channels, args, 3, 3)
    return _joined(*convs, dense("out", args[-1] * (height // side) * (width // side), outputs))


def leaf(shape: tuple[int, ...], outputs: int, args: tuple[int, ...]) -> Tensors:
    """Returns the FEMNIST net of LEAF (Caldas et al. 2018): 5x5 convolutions of 32 and 64, each pooled; 512; out."""
    channels, height, width = sides_of(shape, 3, 4)
    convs = _chain(channels, (32, 64), 5, 5)
    return _joined(*convs, dense("fc1", 64 * (height // 4) * (width // 4), 512), dense("out", 512, outputs))


def cnn1d(shape: tuple[int, ...], outputs: int, args: tuple[int, ...]) -> Tensors:
    """Returns convolutions over time of 5 steps, of the widths in `args`, each pooled by 2; mean over time; out."""
    channels, _ = sides_of(shape, 2, 2 ** len(args))
    return _joined(*_chain(channels, args, 5), dense("out", args[-1], outputs))


def resnet8(shape: tuple[int, ...], outputs: int, args: tuple[int, ...]) -> Tensors:
    """Returns ResNet-8: a 3x3 stem and 3 stages of one block."""
    return _resnet(shape, outputs, args[0], RESNET_BLOCKS["resnet8"])


def resnet18(shape: tuple[int, ...], outputs: int, args: tuple[int, ...]) -> Tensors:
    """Returns ResNet-18: a 3x3 stem and 4 stages of two blocks."""
    return _resnet(shape, outputs, args[0], RESNET_BLOCKS["resnet18"])


def mobile(shape: tuple[int, ...], outputs: int, args: tuple[int, ...]) -> Tensors:
    """Returns a 3x3 stem and, for each width in `args`, a 3x3 convolution by channel and a 1x1 one; out."""
    if any(width % GROUPS for width in args):
        raise ConfigError(f"widths {args}", remedy=f"use multiples of {GROUPS}")
    channels, *_ = sides_of(shape, 3, 1)
    parts = [_normed("stem", channels, args[0], 3)]
    for at, (before, after) in enumerate(pairwise((args[0], *args)), start=1):
        parts += [_normed(f"depth{at}", 1, before, 3), _normed(f"point{at}", before, after, 1)]
    return _joined(*parts, dense("out", args[-1], outputs))


def vector(shape: tuple[int, ...], outputs: int, args: tuple[int, ...]) -> Tensors:
    """Returns one flat tensor: something to send around, with no net to it."""
    return (TensorSpec("vector", (args[0],), spread=1.0),)


def sides_of(shape: tuple[int, ...], rank: int, least: int) -> tuple[int, ...]:
    """Returns `shape`; raises ConfigError unless it is (channels, sides...) of that rank with every side >= `least`."""
    wanted = "(channels, length)" if rank == 2 else "(channels, height, width)"
    if len(shape) != rank or min(shape[1:]) < least:
        raise ConfigError(
            f"input {shape} does not suit this architecture",
            remedy=f"use an input of shape {wanted} with every side at least {least}",
        )
    return shape


def _resnet(shape: tuple[int, ...], outputs: int, width: int, blocks: tuple[int, ...]) -> Tensors:
    if width % GROUPS:
        raise ConfigError(f"width {width} of the first stage", remedy=f"use a multiple of {GROUPS}")
    channels, *_ = sides_of(shape, 3, 1)
    parts = [conv("stem", channels, width, 3, 3, bias=False), norm("stem_norm", width)]
    before = width
    for stage, count in enumerate(blocks, start=1):
        after = width * 2 ** (stage - 1)
        for at in range(count):
            parts.append(_block(f"stage{stage}.{at}", before, after))
            before = after
    return _joined(*parts, dense("out", before, outputs))


def _block(name: str, before: int, after: int) -> Tensors:
    """Two 3x3 convolutions, each normed; where the width changes, a bare 1x1 convolution beside them."""
    first = conv(f"{name}.conv1", before, after, 3, 3, bias=False) + norm(f"{name}.norm1", after)
    second = conv(f"{name}.conv2", after, after, 3, 3, bias=False) + norm(f"{name}.norm2", after)
    shortcut = conv(f"{name}.shortcut", before, after, 1, 1, bias=False) if before != after else ()
    return first + second + shortcut


def _normed(name: str, inputs: int, outputs: int, side: int) -> Tensors:
    return conv(name, inputs, outputs, side, side, bias=False) + norm(f"{name}_norm", outputs)


def _chain(channels: int, widths: tuple[int, ...], *kernel: int) -> list[Tensors]:
    sizes = (channels, *widths)
    return [conv(f"conv{at}", sizes[at - 1], sizes[at], *kernel) for at in range(1, len(sizes))]


def _weighted(name: str, shape: tuple[int, ...], bias: bool = True) -> Tensors:
    weight = TensorSpec(f"{name}.weight", shape, spread=sqrt(6.0 / prod(shape[1:])))
    return (weight, TensorSpec(f"{name}.bias", shape[:1])) if bias else (weight,)


def _joined(*parts: Tensors) -> Tensors:
    return tuple(tensor for part in parts for tensor in part)
