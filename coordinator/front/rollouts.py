"""What `bitfleet rollout`, `manifest` and `keys` do."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from coordinator.front.again import FLEET, LINK, again, told_how_to_go_on
from coordinator.front.commands import print_facts, print_table, serving_of
from coordinator.home import Home, at_work, keys_of, shelf_of, visit_home
from coordinator.rollout.book import RolloutBook
from coordinator.rollout.publish import load_manifest
from coordinator.rollout.run import run_rollout, serve_rollouts
from coordinator.rollout.shown import DEVICE_COLUMNS, VERSION_COLUMNS, facts_of, manifest_facts
from coordinator.rollout.stages import OVER, PASS_OVER, Rollout, obey
from coordinator.rollout.start import Request, start_rollout
from coordinator.state.database import open_database
from wire.errors import StateError
from wire.settings import usable
from wire.sign import make_key, public_key

__all__ = [
    "abort_command",
    "keys_command",
    "manifest_list_command",
    "manifest_show_command",
    "pause_command",
    "resume_rollout_command",
    "rollout_status_command",
    "serve_rollouts_command",
    "start_command",
]


def start_command(options: argparse.Namespace) -> int:
    """Publishes a version and rolls it out."""
    request, serving = _request(options), serving_of(options)
    entered: list[str] = []

    def begin(home: Home) -> str:
        entered.append(start_rollout(home, request, int(time.time())))
        return entered[0]

    with told_how_to_go_on(_again(options, "resume"), lambda: entered):
        rollout = run_rollout(serving, begin, _look(options))
    return _ran(options, rollout)


def rollout_status_command(options: argparse.Namespace) -> int:
    """Prints where a roll-out stands, device by device."""
    _show(options, options.rollout)
    return 0


def pause_command(options: argparse.Namespace) -> int:
    """Holds new offers, through the process that has the roll-out or without one."""
    name = _open_one(options)
    with visit_home(_home(options)) as home, home.database.change():
        book = RolloutBook(home.database)
        before = book.load(name)
        if at_work(home.folder) == book.fleet(name):
            book.wish(name, "pause")
        else:
            book.save(before, obey(before, "pause", 0.0))
    _show(options, name)
    return 0


def serve_rollouts_command(options: argparse.Namespace) -> int:
    """Stays for the newest roll-out of a fleet until it is stopped, which is its right end."""
    options.fleet = options.fleet or _newest_fleet(options)
    with suppress(KeyboardInterrupt):
        serve_rollouts(serving_of(options))
    return 0


def resume_rollout_command(options: argparse.Namespace) -> int:
    """Goes on with a roll-out that was paused, held or interrupted."""
    wish = " ".join(["resume", *_without(options)])
    with told_how_to_go_on(_again(options, "resume")):
        rollout = _run_wish(options, _open_one(options), wish)
    return _ran(options, rollout)


def abort_command(options: argparse.Namespace) -> int:
    """Ends a roll-out and withdraws its offers from devices that have not begun."""
    with told_how_to_go_on(_again(options, "abort")):
        rollout = _run_wish(options, _open_one(options, ended_too=True), "abort")
    _show(options, rollout.name)
    return 0 if rollout.over else 1


def manifest_show_command(options: argparse.Namespace) -> int:
    """Prints a published version as JSON."""
    with _book(options) as book:
        at = book.published(options.version)
    manifest = load_manifest(shelf_of(_home(options)), at)
    print(json.dumps(manifest_facts(manifest, at.digest), indent=2))
    return 0


def manifest_list_command(options: argparse.Namespace) -> int:
    """Prints all versions that were published here."""
    with _book(options) as book:
        print_table(options, book.versions(), VERSION_COLUMNS)
    return 0


def keys_command(options: argparse.Namespace) -> int:
    """Prints the public halves of the keys; keys that are not there yet are made."""
    plans, models = keys_of(_home(options))
    if options.key is not None:
        with usable(options.key, "--key"):
            if not options.key.exists():
                make_key(options.key)
        models = public_key(options.key)
    if options.json:
        print(json.dumps({"coordinator_key": plans, "model_keys": [models]}, indent=2))
    else:
        print(f'coordinator_key = "{plans}"\nmodel_keys = ["{models}"]')
    return 0


def _request(options: argparse.Namespace) -> Request:
    return Request(
        fleet=options.fleet,
        folder=options.folder,
        content=options.content,
        devices=tuple(name for name in options.devices.split(",") if name),
        canary=options.canary,
        stage_s=options.stage_s,
        without=tuple(_without(options)),
        days=options.days,
        key=options.key,
        least_version=options.least_version,
        replace_model=options.replace_model,
        resume=_again(options, "resume"),
        abort=_again(options, "abort"),
    )


def _again(options: argparse.Namespace, *words: str) -> str:
    """Returns the command of `bitfleet rollout` that goes on here; the home knows the fleet."""
    return again(options, "rollout", *words, known=("fleet",))


def _look(options: argparse.Namespace) -> str:
    return again(options, "rollout", "status", known=LINK)


def _newest_fleet(options: argparse.Namespace) -> str:
    """Returns the fleet of the newest roll-out; the usual one where there is none yet."""
    try:
        with _book(options) as book:
            return book.fleet(book.newest())
    except StateError:
        return FLEET


def _without(options: argparse.Namespace) -> list[str]:
    return [word for word in PASS_OVER if getattr(options, f"continue_without_{word}")]


def _open_one(options: argparse.Namespace, ended_too: bool = False) -> str:
    """Returns the roll-out that is not over, or, `ended_too`, the newest."""
    with _book(options) as book:
        name = book.unfinished()
        if name is None and not ended_too:
            newest = book.newest()
            raise StateError(
                f"no roll-out is open; {newest!r} is {book.load(newest).status}",
                remedy="start one with `bitfleet rollout start`",
            )
        return name or book.newest()


def _run_wish(options: argparse.Namespace, name: str, wish: str) -> Rollout:
    """Leaves a wish, and runs or follows the roll-out until there is nothing more to do."""
    with _book(options) as book:
        fleet = book.fleet(name)
    if options.fleet not in (None, fleet):
        raise StateError(f"roll-out {name!r} is of fleet {fleet!r}, not {options.fleet!r}", remedy="leave --fleet out")
    options.fleet = fleet
    serving = serving_of(options)
    return run_rollout(serving, lambda home: _wished(home, name, wish), _look(options))


def _wished(home: Home, name: str, wish: str) -> str:
    with home.database.change():
        RolloutBook(home.database).wish(name, wish)
    return name


def _ran(options: argparse.Namespace, rollout: Rollout) -> int:
    _show(options, rollout.name)
    late = [member.device for member in rollout.members if member.late]
    if rollout.status == "done" and late:
        said = f"still may take it: `{_again(options, 'serve')}` stays for them"
        print(f"bitfleet: {', '.join(late)} {said}", file=sys.stderr)
    if rollout.status == "held":
        resume = _again(options, "resume", "--continue-without-late")
        remedy = f"`{resume}` (or -failed), or `{_again(options, 'abort')}`"
        raise StateError(f"roll-out {rollout.name!r} is held: {rollout.reason}", remedy=remedy)
    if rollout.status in OVER and rollout.status != "done":
        raise StateError(f"roll-out {rollout.name!r} is {rollout.status}: {rollout.reason}")
    return 0


def _show(options: argparse.Namespace, name: str) -> None:
    with _book(options) as book:
        facts: dict[str, Any] = facts_of(book, name or book.newest())
    if options.json:
        print_facts(options, facts)
        return
    rows: list[Mapping[str, Any]] = facts.pop("devices")
    print_facts(options, facts)
    print_table(options, rows, DEVICE_COLUMNS)
    for row in rows:
        # Of a device that did not take it, why it did not is what a person looks for; JSON has both texts.
        print(f"  {row['device']}: {row['reason'] or row['why'] or 'nothing said yet'}")


@contextmanager
def _book(options: argparse.Namespace) -> Iterator[RolloutBook]:
    with closing(open_database(_home(options) / "fleet.sqlite", read_only=True)) as database:
        yield RolloutBook(database)


def _home(options: argparse.Namespace) -> Path:
    home: Path = options.home
    return home.expanduser()
