"""Why a claim falls short, in the words of whoever looked into it; shown below the table of docs/methods.md."""

from __future__ import annotations

__all__ = ["EXPLAINED"]

EXPLAINED: dict[str, str] = {}
"""By the name of the claim."""
