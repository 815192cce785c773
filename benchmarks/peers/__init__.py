"""Peers on the same work, side by side, each in a virtual environment of its own."""

__all__: list[str] = []
