"""What the kernel says in small files: a text or a number. What cannot be read is absent, never zero."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

__all__ = ["number_in", "text_in"]


def number_in(path: Path) -> float | None:
    """Returns the number that a file holds; None where there is none."""
    try:
        found = float(text_in(path))
    except ValueError:
        return None
    return found if isfinite(found) else None


def text_in(path: Path) -> str:
    """Returns the text of a file; nothing where it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
