"""Named tensors <-> bytes through a chain of stages, tensor by tensor or as one vector.

scope "tensor": one record for each tensor of the spec, in its order. scope "update": one record for all of them joined.
The random bits of record i are the stream named (key parts..., i). Tensors that match a pattern in `whole` skip top-k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from wire.bits import Bits
from wire.errors import ConfigError, WireError
from wire.params import Array, Params, check_shapes, flatten, split
from wire.spec import TensorSpec
from wire.stages.chain import Chain
from wire.stages.stage import Local
from wire.stages.topk import TopK

__all__ = ["SCOPES", "Codec"]

SCOPES = ("tensor", "update")


@dataclass(frozen=True, slots=True)
class Codec:
    """How the tensors `order` travel; those that match a pattern in `whole` keep all their values."""

    order: Sequence[TensorSpec]
    chain: Chain
    scope: str
    whole: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.whole and self.scope != "tensor":
            raise ConfigError(
                f"whole = {list(self.whole)} with scope = {self.scope!r}",
                remedy='tensors stand apart only with scope = "tensor": choose it, or leave whole out',
            )

    @classmethod
    def of(
        cls, order: Sequence[TensorSpec], stages: Sequence[Mapping[str, Any]], scope: str, whole: Sequence[str] = ()
    ) -> Codec:
        """Returns the codec that a plan's settings name."""
        return cls(order, Chain.of(stages), scope, tuple(whole))

    def encode(
        self, params: Mapping[str, Array], key: Sequence[object] = (), weights: Mapping[str, Array] | None = None
    ) -> bytes:
        """Returns the records of `params`; `weights` are the sender's own, for stages that rank by them."""
        check_shapes(params, self.order)
        records = []
        for number, (chain, part) in enumerate(self._parts()):
            local = Local(flatten(weights, part) if weights is not None else None)
            records.append(chain.encode(_finite(flatten(params, part), part), local, Bits.of(*key, number)))
        return b"".join(records)

    def decode(self, payload: memoryview) -> Params:
        """Returns the tensors; raises WireError on anything that is not exactly as the plan says."""
        params: Params = {}
        for chain, part in self._parts():
            if not len(payload):
                raise WireError(f"no record for tensor {part[0].name!r}", code="E-TENSORS")
            values, payload = chain.decode(payload, sum(tensor.count for tensor in part))
            params.update(split(_finite(values, part), part))
        if len(payload):
            raise WireError(f"{len(payload)} bytes after the last tensor", code="E-TENSORS")
        return params

    @property
    def most_bytes(self) -> int:
        """Returns a limit on the encoded bytes: a payload may be shorter, never longer."""
        return sum(chain.most_bytes(sum(tensor.count for tensor in part)) for chain, part in self._parts())

    def _parts(self) -> list[tuple[Chain, Sequence[TensorSpec]]]:
        if not self.order:
            return []
        if self.scope == "update":
            return [(self.chain, self.order)]
        full = Chain(tuple(stage for stage in self.chain.stages if not isinstance(stage, TopK)))
        return [(full if self._is_whole(tensor) else self.chain, [tensor]) for tensor in self.order]

    def _is_whole(self, tensor: TensorSpec) -> bool:
        return any(fnmatchcase(tensor.name, pattern) for pattern in self.whole)


def _finite(values: Array, part: Sequence[TensorSpec]) -> Array:
    if not np.isfinite(values).all():
        raise WireError(f"values of {part[0].name!r} are not all finite", code="E-NONFINITE")
    return values
