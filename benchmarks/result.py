"""What a benchmark gives back: figures, and the requirements that they meet or miss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Figure", "Requirement", "Result", "at_least", "at_most", "to_json"]

Figure = float | int | str | None


@dataclass(frozen=True, slots=True)
class Requirement:
    """A bound on one figure. An unknown value (None) is never ok."""

    name: str
    limit: str
    value: float | None
    ok: bool


@dataclass(frozen=True, slots=True)
class Result:
    """Figures by name, units in the names; None where something could not be measured."""

    figures: Mapping[str, Figure]
    requirements: tuple[Requirement, ...] = ()
    conditions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Tells whether every requirement is met."""
        return all(requirement.ok for requirement in self.requirements)


def at_most(name: str, limit: float, value: float | None) -> Requirement:
    """Returns the requirement `value <= limit`."""
    return Requirement(name, f"<= {limit:g}", value, value is not None and value <= limit)


def at_least(name: str, limit: float, value: float | None) -> Requirement:
    """Returns the requirement `value >= limit`."""
    return Requirement(name, f">= {limit:g}", value, value is not None and value >= limit)


def to_json(name: str, conditions: Mapping[str, Any], result: Result) -> dict[str, Any]:
    """Returns the record of one run as plain JSON values; `conditions` of the benchmark's own are added."""
    return {
        "name": name,
        "conditions": {**conditions, **result.conditions},
        "figures": dict(result.figures),
        "requirements": [
            {"name": each.name, "limit": each.limit, "value": each.value, "ok": each.ok} for each in result.requirements
        ],
    }
