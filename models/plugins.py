"""What other installed packages offer through Python entry points.

An entry point is the only way in for foreign code, and only the owner of a machine installs packages on it. A plan
carries names, never code.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points

from wire.errors import ConfigError

__all__ = ["ARCH_GROUP", "DATA_GROUP", "installed", "nearest", "plugin"]

ARCH_GROUP = "bitfleet.models"
DATA_GROUP = "bitfleet.data"


def installed(group: str) -> dict[str, EntryPoint]:
    """Returns the entry points of a group by name; raises ConfigError where two packages claim one name."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        rival = found.setdefault(point.name, point)
        if rival.value != point.value:
            raise ConfigError(
                f"two packages offer {point.name!r} in {group}: {rival.value} and {point.value}",
                remedy="uninstall one of them",
            )
    return found


def plugin(group: str, name: str) -> object | None:
    """Returns the object behind an entry point, imported now; None if nobody offers that name."""
    point = installed(group).get(name)
    if point is None:
        return None
    try:
        return point.load()  # type: ignore[no-any-return]
    except Exception as exc:
        raise ConfigError(
            f"{name!r} in {group} ({point.value}) does not load: {type(exc).__name__}: {exc}",
            remedy="repair or uninstall the package that offers it",
        ) from exc


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a remedy that names the known names nearest to `name`, or all of them if none is near."""
    names = sorted(known)
    return "known: " + ", ".join(get_close_matches(name, names) or names)
