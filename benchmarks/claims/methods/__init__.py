"""The trials and claims, method by method."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

from benchmarks.claims.claim import Claim
from benchmarks.claims.methods import adaptive, freezing, frozen, own, robust, sparse, together
from benchmarks.claims.trial import Trial

__all__ = ["METHODS", "TOGETHER", "Chapter"]


@dataclass(frozen=True, slots=True)
class Chapter:
    """Claims, and the trials by name: those that claims rest on, and those that are only shown."""

    claims: tuple[Claim, ...]
    trials: dict[str, Trial]

    @classmethod
    def of(cls, *parts: ModuleType) -> Chapter:
        """Returns what the modules list."""
        claims = tuple(claim for part in parts for claim in part.CLAIMS)
        return cls(claims, {trial.name: trial for part in parts for trial in part.TRIALS})


METHODS = Chapter.of(robust, adaptive, frozen, freezing, sparse, own)
TOGETHER = Chapter.of(together)
