"""Architectures by name, and the ModelSpec that follows from one.

The text of an architecture is its name and, after dashes, whole numbers: `mlp-24-24` is the architecture `mlp` with
the arguments (24, 24). Built-in names come first; then the entry points of group `bitfleet.models`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import sqrt
from typing import Any

from models import layouts
from models.plugins import ARCH_GROUP, installed, nearest, plugin
from wire.errors import ConfigError
from wire.spec import ModelSpec, TensorSpec

__all__ = ["Arch", "arch_names", "edge_name", "find_arch", "spec_of", "tensors_of"]

_TEXT = re.compile(r"(?P<name>.+?)(?P<args>(?:-[0-9]{1,9})*)")


@dataclass(frozen=True, slots=True)
class Arch:
    """How a net and its tensors follow from (input shape, outputs, integer arguments).

    `tensors` lists them without torch; left out, they are read off the net that `build` makes. `build` returns a
    torch.nn.Module; the built-in ones leave it out (models/nets.py makes theirs). `defaults` stand in where the text
    has no arguments, and `most` limits how many it may have.
    """

    build: Callable[[tuple[int, ...], int, tuple[int, ...]], Any] | None = None
    tensors: Callable[[tuple[int, ...], int, tuple[int, ...]], Sequence[TensorSpec]] | None = None
    defaults: tuple[int, ...] = ()
    most: int = 0


_BUILT_IN = {
    "cnn": Arch(tensors=layouts.cnn, defaults=(16, 32), most=6),
    "cnn1d": Arch(tensors=layouts.cnn1d, defaults=(32, 64), most=6),
    "leaf": Arch(tensors=layouts.leaf),
    "mlp": Arch(tensors=layouts.mlp, defaults=(64,), most=16),
    "mobile": Arch(tensors=layouts.mobile, defaults=(16, 32), most=6),
    "resnet18": Arch(tensors=layouts.resnet18, defaults=(64,), most=1),
    "resnet8": Arch(tensors=layouts.resnet8, defaults=(16,), most=1),
    "vector": Arch(tensors=layouts.vector, defaults=(1000,), most=1),
}


def arch_names() -> tuple[str, ...]:
    """Returns every architecture that can be named on this machine."""
    return tuple(sorted({*_BUILT_IN, *installed(ARCH_GROUP)}))


def find_arch(text: str) -> tuple[str, Arch, tuple[int, ...]]:
    """Returns name, Arch and arguments; raises ConfigError for an unknown name or arguments it does not take."""
    match = _TEXT.fullmatch(text)
    name = match["name"] if match else text
    arch = _BUILT_IN.get(name) or _foreign(name)
    args = tuple(int(part) for part in match["args"].split("-")[1:]) if match else ()
    if len(args) > arch.most or 0 in args:
        raise ConfigError(
            f"architecture {text!r} has the arguments {args}",
            remedy=f"{name!r} takes at most {arch.most}, each at least 1",
        )
    return name, arch, args or arch.defaults


def tensors_of(text: str, shape: tuple[int, ...], outputs: int) -> tuple[TensorSpec, ...]:
    """Returns all tensors of an architecture in the net's order; loads torch only for a foreign one that lists none."""
    if not shape or min(shape) < 1 or outputs < 1:
        raise ConfigError(f"input {shape} and {outputs} outputs", remedy="every one of them must be at least 1")
    _, arch, args = find_arch(text)
    if arch.tensors is not None:
        return tuple(arch.tensors(shape, outputs, args))
    try:
        from models.nets import listed  # noqa: PLC0415  torch
    except ImportError as exc:
        raise ConfigError(
            f"architecture {text!r} lists its tensors by building its net, and torch is missing: {exc}",
            remedy="install torch (on a board: the extra `train` of bitfleet-agent), or give the Arch `tensors`",
        ) from exc
    return listed(text, shape, outputs)


def spec_of(
    arch: str, input: Iterable[int], outputs: int, seed: int, freeze: Sequence[str] = (), *, bell: bool = False
) -> ModelSpec:
    """Returns the ModelSpec of an architecture; with `bell` its tensors start near normal, equally wide.

    `freeze` names the tensors that keep their seeded values and never travel: exact names, what comes before a dot
    (`fc1`), patterns as in fnmatch (`conv*`), or `largest`, the tensor with most elements (the first of equals).
    """
    shape = tuple(input)
    tensors = tensors_of(arch, shape, outputs)
    if bell:
        tensors = tuple(replace(one, spread=one.spread / sqrt(3.0), bell=bool(one.spread)) for one in tensors)
    still = _chosen(tensors, freeze)
    trainable = tuple(tensor for tensor in tensors if tensor.name not in still)
    if not trainable:
        raise ConfigError(f"freeze {list(freeze)} leaves nothing of {arch!r} to train", remedy="freeze less")
    return ModelSpec(arch, shape, outputs, seed, trainable, tuple(t for t in tensors if t.name in still))


def _foreign(name: str) -> Arch:
    found = plugin(ARCH_GROUP, name)
    if found is None:
        raise ConfigError(f"unknown architecture {name!r}", remedy=nearest(name, arch_names()))
    arch = found if isinstance(found, Arch) else _called(name, found)
    if arch.build is None and arch.tensors is None:
        raise ConfigError(f"architecture {name!r} has neither `build` nor `tensors`", remedy="give it `build`")
    return arch


def _called(name: str, factory: object) -> Arch:
    made = factory() if callable(factory) else factory
    if not isinstance(made, Arch):
        raise ConfigError(
            f"entry point {name!r} gives {type(made).__name__}",
            remedy="it must name a models.archs.Arch or a callable that returns one",
        )
    return made


def edge_name(spec: ModelSpec, name: str) -> str:
    """Returns the name of the net's "first" or "last" weight tensor; any other text is returned as it is."""
    if name not in ("first", "last"):
        return name
    order = [tensor.name for tensor in tensors_of(spec.arch, spec.input, spec.outputs) if len(tensor.shape) > 1]
    return order[0 if name == "first" else -1] if order else name


def _chosen(tensors: Sequence[TensorSpec], freeze: Sequence[str]) -> frozenset[str]:
    names = [tensor.name for tensor in tensors]
    chosen: set[str] = set()
    for wish in freeze:
        pattern = max(tensors, key=lambda tensor: tensor.count).name if wish == "largest" else wish
        hits = [name for name in names if fnmatchcase(name, pattern) or name.startswith(f"{pattern}.")]
        if not hits:
            raise ConfigError(f"freeze {wish!r} fits no tensor", remedy=nearest(wish, names))
        chosen.update(hits)
    return frozenset(chosen)
