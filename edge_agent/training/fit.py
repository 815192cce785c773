"""What local training gives back."""

from __future__ import annotations

from dataclasses import dataclass, field

from wire.params import Params
from wire.spec import ModelSpec

__all__ = ["Fit"]


@dataclass(frozen=True, slots=True)
class Fit:
    """The parameters that travel, the examples they were trained on, what was measured, and what the device keeps.

    `own` is the spec of the model of the device's own that is in the memory.
    """

    params: Params
    examples: int
    metrics: dict[str, float] = field(default_factory=dict)
    memory: Params = field(default_factory=dict)
    own: ModelSpec | None = None
