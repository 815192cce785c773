"""What a transform of a net's weights is, and the transforms that a plan's settings name.

Training calls the net through torch.func.functional_call with shaped weights, so names stay the net's own, and the
gradient lands on the float master weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models.weights.activations import RangedActivations
from models.weights.fake_quant import FakeQuant
from models.weights.multibit import Multibit
from models.weights.noise import Noise
from models.weights.settings import Swat, TransformSettings, check_transforms, kept_names, shaped_names
from wire.errors import ConfigError

__all__ = ["TRANSFORMS", "Transform", "shaped_names", "transforms_of"]


class Transform(Protocol):
    """Reshapes weights for a forward pass. It may keep state while one device trains, never across rounds."""

    def weights(self, params: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Returns all tensors as the training forward pass sees them; unchanged ones are the same objects."""

    def around(self, net: nn.Module) -> AbstractContextManager[None]:
        """Returns a context in which hooks are on the net; they are gone after it."""

    def deployed(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns all tensors as they are evaluated and deployed; unchanged ones are the same objects."""


def transforms_of(tables: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Transform]:
    """Returns the transforms in these tables, in order.

    `names` are the tensors that may be shaped, as shaped_names gives them for the whole net, frozen ones included;
    each transform leaves out what its own `skip` names.
    """
    kinds = [str(table.get("transform")) for table in tables]
    return [
        TRANSFORMS[kind](one, _own(kind, one, names)) for kind, one in zip(kinds, check_transforms(tables), strict=True)
    ]


def _own(kind: str, settings: TransformSettings, names: Sequence[str]) -> tuple[str, ...]:
    own = kept_names(names, getattr(settings, "skip", ()))
    if not own:
        raise ConfigError(
            f"transform {kind!r} has no tensor to work on among {list(names)[:5]}",
            remedy="skip less, or use a net with more layers",
        )
    return own


def _swat(settings: Swat, names: tuple[str, ...]) -> Transform:
    from models.weights.swat import SparseWeights  # noqa: PLC0415  few use it

    return SparseWeights(settings, names)


TRANSFORMS: dict[str, Callable[..., Transform]] = {
    "activations": lambda settings, names: RangedActivations(settings),
    "apqn": Noise,
    "mqat": Multibit,
    "qat": FakeQuant,
    "swat": _swat,
}
