"""The resident on the board: it moves bytes and minds the board. NumPy and torch are loaded by its child only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_agent.serving.model import Answer, Model

__all__ = ["Answer", "Model"]


def __getattr__(name: str) -> Any:
    """Returns `Model` or `Answer` when it is first asked for: importing the package stays light."""
    if name in __all__:
        from edge_agent.serving import model  # noqa: PLC0415

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
