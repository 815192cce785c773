"""Opens a roll-out: a new version of an export or of an older version, and the devices that it is for, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from coordinator.home import Home
from coordinator.rollout.book import RolloutBook
from coordinator.rollout.exported import Export, read_export
from coordinator.rollout.publish import Edition, load_manifest, of_export, renewed, shelve
from coordinator.rollout.stages import PASS_OVER, Member, Rollout
from coordinator.state.registry import Registry
from wire.errors import ConfigError, StateError
from wire.messages.fields import DEVICE_ID
from wire.messages.manifest import Manifest
from wire.settings import check_range
from wire.topics import Topics

__all__ = ["Request", "start_rollout"]

_MOST_DAYS = 3650
_LONGEST_STAGE_S = 90 * 86400


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asks for: an export folder, or an older version's content; and how it shall go out.

    Without `devices` it goes to all of the fleet that the home knows. `least_version` is for a home that lost its
    database: devices take no version below one that they have had. `replace_model` lets a model go out that
    applications would have to feed or read in another way than the last one. `resume` and `abort` are the commands that
    go on with one that is open already, or end it.
    """

    fleet: str
    folder: Path | None = None
    content: int = 0
    devices: tuple[str, ...] = ()
    canary: str = ""
    stage_s: float = 3600.0
    without: tuple[str, ...] = ()
    days: int = 365
    key: Path | None = None
    least_version: int = 1
    replace_model: bool = False
    resume: str = "bitfleet rollout resume"
    abort: str = "bitfleet rollout abort"


def start_rollout(home: Home, request: Request, now_s: int) -> str:
    """Publishes a new version, enters its roll-out, and returns the roll-out's name; nobody is told of it yet."""
    book = RolloutBook(home.database)
    _check(request)
    _check_none_open(book, request)
    members = _in_order(home, request)
    newest = book.next_version() - 1
    version = max(newest + 1, request.least_version)
    # Devices take no manifest that is older than one they had: a clock that was ahead once must not end a fleet.
    stamp_s = max(now_s, book.last_created_s(request.fleet))
    edition = Edition(request.fleet, version, stamp_s, request.days, request.key or home.model_key(), parent=newest)
    manifest, export = _manifest(home, book, request, edition)
    if not request.replace_model:
        _check_same_use(home, book, manifest)
    at = shelve(home.shelf, manifest, edition.key, export.files if export else {}, home.durable)
    name = f"rollout-{version}-{token_hex(3)}"
    without = frozenset(request.without)
    rollout = Rollout(name, version, members, stage_s=request.stage_s, without=without)
    with home.database.change():  # short: a run may be at work here. Another `start` may have come first
        _check_none_open(book, request)
        if book.next_version() != newest + 1:
            raise StateError("another version was published in this moment", remedy="start the roll-out again")
        book.enter(manifest, at, rollout)
    return name


def _manifest(home: Home, book: RolloutBook, request: Request, edition: Edition) -> tuple[Manifest, Export | None]:
    if request.folder is not None:
        export = read_export(request.folder)
        return of_export(export, edition), export
    return renewed(load_manifest(home.shelf, book.published(request.content)), edition), None


def _check(request: Request) -> None:
    if (request.folder is None) == (request.content == 0):
        raise ConfigError("a roll-out needs an export folder or an older version", remedy="EXPORT_DIR or --content N")
    Topics(request.fleet)
    check_range("--days", request.days, 1, _MOST_DAYS)
    check_range("--stage-s", request.stage_s, 1, _LONGEST_STAGE_S)
    check_range("--least-version", request.least_version, 1, 1 << 53)
    if wrong := set(request.without) - set(PASS_OVER):
        raise ConfigError(f"continue without {sorted(wrong)}", remedy=f"one of {', '.join(PASS_OVER)}")


def _check_same_use(home: Home, book: RolloutBook, manifest: Manifest) -> None:
    """Raises StateError if applications could not use the model as they use the last one of this fleet."""
    before = [one["version"] for one in book.versions() if one["fleet"] == manifest.fleet]
    if not before:
        return
    try:
        last = load_manifest(home.shelf, book.published(before[-1]))
    except StateError:
        return  # a shelf that lost it must not keep the next one from going out
    for what in ("model", "input", "outputs"):
        was, now = getattr(last, what), getattr(manifest, what)
        if was != now:
            raise StateError(
                f"version {last.version} has {what} {was!r}, this one {now!r}: applications would fail with it",
                remedy="name the right export, or say --replace-model",
            )


def _check_none_open(book: RolloutBook, request: Request) -> None:
    open_one = book.unfinished()
    if open_one:
        remedy = f"`{request.resume}` goes on with it, `{request.abort}` ends it"
        raise StateError(f"roll-out {open_one!r} is not over", remedy=remedy)


def _in_order(home: Home, request: Request) -> tuple[Member, ...]:
    """Returns the devices in the order in which they get the model: the canary, then as named, else by id."""
    names = list(dict.fromkeys(request.devices)) or _known(home, request.fleet)
    if not names:
        remedy = "name them with --devices, or let them join a run first: `bitfleet devices` lists who was seen"
        raise StateError(f"this home knows no devices of fleet {request.fleet!r}", remedy=remedy)
    for name in (*names, *([request.canary] if request.canary else [])):
        if not DEVICE_ID.fullmatch(name):
            raise ConfigError(f"device {name!r}", remedy="use 1 to 32 of a-z, 0-9 and hyphen")
    if request.canary and request.canary not in names:
        raise ConfigError(f"the canary {request.canary!r} is none of the devices", remedy=f"one of {_short(names)}")
    return tuple(Member(name) for name in sorted(names, key=lambda name: name != request.canary))


def _known(home: Home, fleet: str) -> list[str]:
    registry = Registry(home.database, fleet)
    registry.recall()
    return sorted(registry.devices)


def _short(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
