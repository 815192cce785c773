"""Files that do not hold what their name says: moved aside for a person to look at, the newest of a folder only."""

from __future__ import annotations

from pathlib import Path

__all__ = ["set_aside"]


def set_aside(path: Path) -> None:
    """Renames a file to NAME.damaged and deletes the ones before it: on a failing card they would fill the disk."""
    aside = path.with_suffix(".damaged")
    path.replace(aside)
    for older in path.parent.glob("*.damaged"):
        if older != aside:
            older.unlink(missing_ok=True)
