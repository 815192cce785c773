"""What the commands do."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from coordinator.broker import start_broker
from coordinator.front.again import BROKER, FLEET, again, told_how_to_go_on
from coordinator.front.demo import DemoOptions, run_demo
from coordinator.front.report import figures_of
from coordinator.recipe import Recipe, ordered_recipe
from coordinator.rollout.book import RolloutBook
from coordinator.rounds.book import Book
from coordinator.rounds.phases import last_round
from coordinator.service import Serving, serve
from coordinator.state.database import Database, open_database
from models.fetch import fetch_command
from wire.errors import StateError
from wire.links.link import parse_link
from wire.topics import Topics, acl_file

__all__ = [
    "acl_command",
    "broker_command",
    "data_command",
    "demo_command",
    "devices_command",
    "print_facts",
    "print_table",
    "resume_command",
    "runs_command",
    "serve_command",
    "serving_of",
    "status_command",
]

_MOST_SHOWN = 5
_KNOWN = ("fleet", "broker")  # of a run, to its home


def serve_command(options: argparse.Namespace) -> int:
    """Runs a recipe to its end."""
    serving, recipe = serving_of(options), _recipe(options)
    with told_how_to_go_on(again(options, "resume", known=_KNOWN)):
        run = serve(serving, recipe, options.run_name)
    return _finished(options, run)


def resume_command(options: argparse.Namespace) -> int:
    """Goes on with an open run, or with one that was stopped if it is named; its fleet and broker are those it had."""
    row = _open_run(options.home.expanduser(), options.run)
    fleet = row.get("fleet") or options.fleet or FLEET  # a run of an older version has none
    if options.fleet not in (None, fleet):
        remedy = "leave --fleet out, or name a run of that fleet"
        raise StateError(f"run {row['run']!r} is of fleet {fleet!r}, not {options.fleet!r}", remedy=remedy)
    broker = options.broker or row.get("broker") or BROKER
    options = argparse.Namespace(**{**vars(options), "fleet": fleet, "broker": broker})
    serving = serving_of(options)
    words = ("resume", options.run) if options.run else ("resume",)
    with told_how_to_go_on(again(options, *words, known=_KNOWN)):
        run = serve(serving, None, row["run"], reopen=bool(options.run))
    return _finished(options, run)


def demo_command(options: argparse.Namespace) -> int:
    """Runs a whole federation on this machine."""
    recipe = _recipe(options)
    folder = options.dir or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    return run_demo(DemoOptions(recipe, options.broker, folder.absolute(), options.json))


def status_command(options: argparse.Namespace) -> int:
    """Prints where a run stands."""
    with closing(_open(options)) as database:
        run = options.run or _newest(database)
        facts: dict[str, Any] = figures_of(database.ledger(run))
        row = last_round(database, run)
        if row is not None and not row.over:
            outcomes = Book(database, run).outcomes(row.number)
            facts |= {"reason": row.reason, "round": row.number, "phase": row.phase.value}
            facts["waiting_for"] = sorted(device for device, outcome in outcomes.items() if not outcome)
    _print_figures(options, facts)
    return 0


def devices_command(options: argparse.Namespace) -> int:
    """Prints the devices."""
    with closing(_open(options)) as database:
        rows = [{"fleet": "", **dict(row)} for row in database.rows("SELECT * FROM devices")]  # older homes: no fleet
    devices = [{**row, "info": json.loads(row["info"])} for row in rows]
    devices.sort(key=lambda one: (one["fleet"], one["device"]))
    for one in [] if options.json else devices:
        one["last_seen"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one["last_seen"]))
        one["task"] = one["info"].get("task", "")
    print_table(options, devices, ("device", "fleet", "task", "state", "code", "reason", "last_seen"))
    return 0


def runs_command(options: argparse.Namespace) -> int:
    """Prints all runs."""
    with closing(_open(options)) as database:
        names = [row["run"] for row in database.rows("SELECT run FROM runs ORDER BY rowid")]
        figures = [figures_of(database.ledger(name)) for name in names if options.run in ("", name)]
    print_table(options, figures, ("run", "recipe", "task", "status", "rounds", "accuracy", "bytes_up", "seconds"))
    return 0


def broker_command(options: argparse.Namespace) -> int:
    """Keeps a broker running until interrupted."""
    folder = options.folder.expanduser()
    with start_broker(options.kind, folder, options.port) as broker:
        print(f"{broker.kind} at {broker.url}, files in {folder}; stop with Ctrl-C", flush=True)
        while broker.alive():
            time.sleep(0.5)
    raise StateError(f"the broker ended by itself; see {folder / 'broker.log'}")


def acl_command(options: argparse.Namespace) -> int:
    """Prints what a broker of one's own lets each user name read and write."""
    print(acl_file(options.fleet, options.coordinator), end="")
    return 0


def data_command(options: argparse.Namespace) -> int:
    """Fetches data sets."""
    return fetch_command(options.names)


def _recipe(options: argparse.Namespace) -> Recipe:
    words = {"task": options.task, "goal": options.devices, "rounds": options.rounds, "seed": options.seed}
    return ordered_recipe(options.recipe, options.set, **words)


def serving_of(options: argparse.Namespace) -> Serving:
    """Returns where the coordinator lives and how it reaches its devices, as the options say."""
    Topics(options.fleet)  # raises what is wrong with the name, before a run has it
    link = parse_link(
        options.broker,
        username=options.username,
        password_file=options.password_file,
        ca_file=options.ca_file,
        cert_file=options.cert_file,
        key_file=options.key_file,
    )
    return Serving(options.home.expanduser(), options.fleet, link, broker=options.broker)


def _finished(options: argparse.Namespace, run: str) -> int:
    with closing(_open(options)) as database:
        facts = figures_of(database.ledger(run))
        waiting = RolloutBook(database).unfinished()
    _print_figures(options, facts)
    if facts["status"] == "stopped":
        command = again(options, "resume", run, known=_KNOWN)
        print(f"bitfleet: run {run} was stopped: `{command}` goes on with it", file=sys.stderr)
    if waiting:
        command = again(options, "rollout", "resume", known=("fleet",))
        print(f"bitfleet: roll-out {waiting} waits: `{command}` goes on with it", file=sys.stderr)
    return 0 if facts["status"] == "done" else 1


def _open(options: argparse.Namespace) -> Database:
    return open_database(options.home.expanduser() / "fleet.sqlite", read_only=True)


def _newest(database: Database) -> str:
    run = database.newest_run()
    if not run:
        raise StateError("there are no runs here", remedy="start one with `bitfleet serve` or `bitfleet demo`")
    return run


def _open_run(home: Path, name: str) -> dict[str, Any]:
    with closing(open_database(home / "fleet.sqlite", read_only=True)) as database:
        rows = database.rows("SELECT * FROM runs ORDER BY rowid DESC")
    for row in map(dict, rows):
        reported = (home / "runs" / row["run"] / "report.json").exists()
        unfinished = row["status"] == "open" or not reported
        if row["run"] == name and not unfinished and row["status"] != "stopped":
            raise StateError(f"run {name!r} is {row['status']}", remedy="start a new one with `bitfleet serve`")
        if row["run"] == name or (unfinished and not name):
            return row
    raise StateError(f"no open run {name!r} in {home}", remedy="`bitfleet runs` lists what there is")


def _print_figures(options: argparse.Namespace, facts: Mapping[str, Any]) -> None:
    """Prints a run's figures; to a person, who sees the number of the present `round` too, says what is counted."""
    names = {} if options.json else {"rounds": "rounds_done"}
    print_facts(options, {names.get(name, name): value for name, value in facts.items()})


def print_facts(options: argparse.Namespace, facts: Mapping[str, Any]) -> None:
    """Prints facts by name, or as JSON."""
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        print(f"{name:18} {_brief(value)}".rstrip())


def _brief(value: Any) -> str:
    """Returns a value for a person; of a long list the end, which is what is new."""
    if value is None:
        return "unknown"
    if isinstance(value, list) and len(value) > _MOST_SHOWN:
        ends = ", ".join(f"{one:.4g}" if isinstance(one, float) else _brief(one) for one in value[-_MOST_SHOWN:])
        return f"... {ends} (the last {_MOST_SHOWN} of {len(value)}; --json has all)"
    return str(value)


def print_table(options: argparse.Namespace, rows: Iterable[Mapping[str, Any]], columns: tuple[str, ...]) -> None:
    """Prints rows as a table, or as JSON with all that they hold."""
    if options.json:
        print(json.dumps(list(rows), indent=2))
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from coordinator.front.plain import plain  # noqa: PLC0415

    table = Table(*columns)
    for row in rows:
        table.add_row(*(plain("" if row[column] is None else row[column]) for column in columns))
    Console().print(table)
