"""Named tensors <-> bytes through a chain of stages, tensor by tensor or as one vector.

scope "tensor": one record for each tensor of the spec, in its order. scope "update": one record for all of them joined.
The random bits of record i are the stream named (key parts..., i).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wire.bits import Bits
from wire.errors import WireError
from wire.params import Array, Params, check_shapes, flatten, split
from wire.spec import TensorSpec
from wire.stages.chain import Chain
from wire.stages.stage import Local

__all__ = ["SCOPES", "Codec"]

SCOPES = ("tensor", "update")


@dataclass(frozen=True, slots=True)
class Codec:
    """How the tensors `order` travel."""

    order: Sequence[TensorSpec]
    chain: Chain
    scope: str

    @classmethod
    def of(cls, order: Sequence[TensorSpec], stages: Sequence[Mapping[str, Any]], scope: str) -> Codec:
        """Returns the codec that a plan's settings name."""
        return cls(order, Chain.of(stages), scope)

    def encode(
        self, params: Mapping[str, Array], key: Sequence[object] = (), weights: Mapping[str, Array] | None = None
    ) -> bytes:
        """Returns the records of `params`; `weights` are the sender's own, for stages that rank by them."""
        check_shapes(params, self.order)
        records = []
        for number, part in enumerate(self._parts()):
            local = Local(flatten(weights, part) if weights is not None else None)
            records.append(self.chain.encode(_finite(flatten(params, part), part), local, Bits.of(*key, number)))
        return b"".join(records)

    def decode(self, payload: memoryview) -> Params:
        """Returns the tensors; raises WireError on anything that is not exactly as the plan says."""
        params: Params = {}
        for part in self._parts():
            if not len(payload):
                raise WireError(f"no record for tensor {part[0].name!r}", code="E-TENSORS")
            values, payload = self.chain.decode(payload, sum(tensor.count for tensor in part))
            params.update(split(_finite(values, part), part))
        if len(payload):
            raise WireError(f"{len(payload)} bytes after the last tensor", code="E-TENSORS")
        return params

    @property
    def most_bytes(self) -> int:
        """Returns a limit on the encoded bytes: a payload may be shorter, never longer."""
        return sum(self.chain.most_bytes(sum(tensor.count for tensor in part)) for part in self._parts())

    def _parts(self) -> list[Sequence[TensorSpec]]:
        if not self.order:
            return []
        return [self.order] if self.scope == "update" else [[tensor] for tensor in self.order]


def _finite(values: Array, part: Sequence[TensorSpec]) -> Array:
    if not np.isfinite(values).all():
        raise WireError(f"values of {part[0].name!r} are not all finite", code="E-NONFINITE")
    return values
