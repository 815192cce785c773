"""The resident on the board: it moves bytes and minds the board. NumPy and torch are loaded by its child only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_agent.serving.model import Model

__all__ = ["Model"]


def __getattr__(name: str) -> Any:
    """Returns `Model` when it is first asked for: importing the package stays light."""
    if name == "Model":
        from edge_agent.serving.model import Model  # noqa: PLC0415

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
