"""The coordinator's database: one SQLite file, every change one durable transaction.

The ledger is a table that takes rows and never gives them up: triggers refuse UPDATE, DELETE and REPLACE.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wire.errors import StateError

__all__ = ["Database", "open_database"]

_DEVICES = """
CREATE TABLE IF NOT EXISTS devices (
    fleet TEXT, device TEXT, state TEXT NOT NULL, session INTEGER NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL,
    info TEXT NOT NULL, first_seen REAL NOT NULL, last_seen REAL NOT NULL, PRIMARY KEY (fleet, device));
"""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY, recipe TEXT NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL DEFAULT '',
    created REAL NOT NULL, simulated INTEGER NOT NULL, fleet TEXT NOT NULL DEFAULT '', broker TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS rounds (
    run TEXT, round INTEGER, state TEXT NOT NULL, base TEXT NOT NULL, plan BLOB, reason TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (run, round));
CREATE TABLE IF NOT EXISTS invited (
    run TEXT, round INTEGER, device TEXT, outcome TEXT NOT NULL DEFAULT '', PRIMARY KEY (run, round, device));
CREATE TABLE IF NOT EXISTS updates (
    run TEXT, round INTEGER, device TEXT, digest TEXT NOT NULL, bytes INTEGER NOT NULL, examples INTEGER NOT NULL,
    into_round INTEGER NOT NULL, PRIMARY KEY (run, round, device));
CREATE TABLE IF NOT EXISTS refused (
    run TEXT, round INTEGER, device TEXT, digest TEXT, code TEXT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (run, round, device, digest));
CREATE TABLE IF NOT EXISTS manifests (
    version INTEGER PRIMARY KEY, fleet TEXT NOT NULL, model TEXT NOT NULL, content TEXT NOT NULL, digest TEXT NOT NULL,
    bytes INTEGER NOT NULL, created INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS rollouts (
    rollout TEXT PRIMARY KEY, fleet TEXT NOT NULL, version INTEGER NOT NULL, status TEXT NOT NULL,
    stage INTEGER NOT NULL, stage_s REAL NOT NULL, without TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '',
    wish TEXT NOT NULL DEFAULT '', created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS rollout_devices (
    rollout TEXT, device TEXT, place INTEGER NOT NULL, stage INTEGER NOT NULL, outcome TEXT NOT NULL,
    late INTEGER NOT NULL, changes INTEGER NOT NULL, report BLOB, offer TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (rollout, device));
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ledger (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, run TEXT, round INTEGER, device TEXT,
    event TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS updates_by_digest ON updates (device, digest);
CREATE INDEX IF NOT EXISTS refused_by_digest ON refused (device, digest);
CREATE INDEX IF NOT EXISTS ledger_by_run ON ledger (run, seq);
CREATE TRIGGER IF NOT EXISTS ledger_keeps BEFORE DELETE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
CREATE TRIGGER IF NOT EXISTS ledger_stays BEFORE UPDATE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
CREATE TRIGGER IF NOT EXISTS ledger_grows BEFORE INSERT ON ledger -- REPLACE would delete without a trigger
    WHEN EXISTS (SELECT 1 FROM ledger WHERE seq = NEW.seq) BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
"""

_REMEDY = "see that the disk has room and may be written; `bitfleet resume` then goes on where it was"


@dataclass(slots=True)
class Database:
    """A connection. Writes go through `change`; `note` adds a line to the ledger within one."""

    link: sqlite3.Connection

    @contextmanager
    def change(self) -> Iterator[None]:
        """Makes everything within one transaction; it is on the disk when the block ends."""
        try:
            self.link.execute("BEGIN IMMEDIATE")
            yield
            self.link.execute("COMMIT")
        except BaseException as exc:
            self._roll_back()
            if isinstance(exc, sqlite3.Error):
                raise StateError(f"the database takes no change: {exc}", remedy=_REMEDY) from exc
            raise

    def _roll_back(self) -> None:
        """Leaves the database as it was; SQLite has done so itself after some errors, a full disk among them."""
        if self.link.in_transaction:
            with suppress(sqlite3.Error):
                self.link.execute("ROLLBACK")

    def write(self, statement: str, *values: object) -> None:
        """Runs one statement; only within `change`."""
        if not self.link.in_transaction:
            raise StateError("a write outside a transaction")
        self.link.execute(statement, values)

    def rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        """Returns the rows of a query."""
        return self.link.execute(query, values).fetchall()

    def row(self, query: str, *values: object) -> sqlite3.Row | None:
        """Returns the first row of a query, or None."""
        found = self.link.execute(query, values).fetchone()
        return found if isinstance(found, sqlite3.Row) else None

    def newest_run(self) -> str:
        """Returns the run that was entered last; nothing where there is none."""
        row = self.row("SELECT run FROM runs ORDER BY rowid DESC LIMIT 1")
        return str(row["run"]) if row else ""

    def note(self, event: str, run: str = "", number: int = -1, device: str = "", **body: Any) -> None:
        """Adds a line to the ledger; only within `change`."""
        self.write(
            "INSERT INTO ledger (at, run, round, device, event, body) VALUES (?, ?, ?, ?, ?, ?)",
            time.time(), run, number, device, event, json.dumps(body, sort_keys=True, allow_nan=False),
        )  # fmt: skip

    def ledger(self, run: str, after: int = 0) -> Iterator[Mapping[str, Any]]:
        """Yields the run's ledger after line `after` in order, each line as one flat mapping."""
        for row in self.link.execute("SELECT * FROM ledger WHERE run = ? AND seq > ? ORDER BY seq", (run, after)):
            line = {name: row[name] for name in ("seq", "at", "run", "round", "device", "event")}
            yield {**line, **json.loads(row["body"])}

    def close(self) -> None:
        """Closes the file."""
        self.link.close()


def open_database(path: Path, read_only: bool = False, durable: bool = True) -> Database:
    """Returns the database at `path`, made if need be; raises StateError if the file is no such database.

    Without `durable` a power cut may take the newest changes, never a killed process.
    """
    with ExitStack() as undo:
        try:
            mode = "ro" if read_only else "rwc"
            link = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)
            undo.callback(link.close)  # Python 3.13 warns of a connection that is left open
            if not read_only:
                link.execute("PRAGMA journal_mode = WAL")
                link.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
                link.executescript(f"BEGIN IMMEDIATE; {_DEVICES} {_SCHEMA}")
                _upgrade(link)
                link.execute("COMMIT")  # whoever reads sees all tables or none
            link.execute("PRAGMA busy_timeout = 5000")
            link.execute("SELECT count(*) FROM runs").fetchone()
        except sqlite3.Error as exc:
            what = "there is no such file" if read_only and _missing(path) else str(exc)
            raise StateError(f"{path}: {what}", remedy="name the folder that `bitfleet serve` or `demo` made") from exc
        undo.pop_all()
    link.row_factory = sqlite3.Row
    return Database(link)


def _upgrade(link: sqlite3.Connection) -> None:
    """Gives the tables of an older home their fleets: its runs have none, its devices are heard of anew."""
    if "fleet" not in _columns(link, "runs"):
        for column in ("fleet", "broker"):
            link.execute(f"ALTER TABLE runs ADD COLUMN {column} TEXT NOT NULL DEFAULT ''")
    if "fleet" not in _columns(link, "devices"):
        link.execute("DROP TABLE devices")
        link.execute(_DEVICES)


def _columns(link: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in link.execute(f"PRAGMA table_info({table})")}


def _missing(path: Path) -> bool:
    """Tells whether there is no such file, as far as the folder lets itself be read."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
