"""The coordinator's folder: a database for the fleet, a folder for each run, a signing key, one process at a time."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import IO

from coordinator.federation import Federation
from coordinator.learning.evaluator import Evaluator
from coordinator.recipe import Recipe, recipe_from_json
from coordinator.rounds.phases import Phase, last_round
from coordinator.rounds.planner import Planner
from coordinator.run_state import RunState
from coordinator.state.database import Database, open_database
from coordinator.state.registry import Registry
from wire.errors import ConfigError, StateError
from wire.messages.fields import DEVICE_ID
from wire.settings import make_folder, usable
from wire.sign import make_key, public_key, signer
from wire.topics import Topics
from wire.transport import Transport

__all__ = ["Home", "at_work", "in_use", "keys_of", "open_home", "refuse_another_fleet", "shelf_of", "visit_home"]

_KEY, _MODEL_KEY, _LOCK, _DATABASE = "round.key", "models.key", "coordinator.lock", "fleet.sqlite"


@dataclass(slots=True)
class Home:
    """An open folder. `session` counts the starts of a coordinator here; 0 of one who only visits.

    With `durable` = False files are not forced to the disk: for simulated runs, which a power cut may set back.
    """

    folder: Path
    database: Database
    session: int
    durable: bool = True

    @property
    def public_key(self) -> str:
        """Returns what devices check plans and receipts against."""
        return public_key(self.folder / _KEY)

    @property
    def sign(self) -> Callable[[bytes], bytes]:
        """Returns the function that signs plans, receipts and offers."""
        return signer(self.folder / _KEY)

    @property
    def shelf(self) -> Path:
        """Returns the folder with the blobs of models, one copy for all roll-outs."""
        return shelf_of(self.folder)

    def model_key(self) -> Path:
        """Returns the key that signs manifests, made when it is first needed."""
        return _made(self.folder / _MODEL_KEY)

    def run_folder(self, run: str) -> Path:
        """Returns a run's folder."""
        return self.folder / "runs" / run

    def new_run(
        self, recipe: Recipe, simulated: bool = False, name: str = "", *, fleet: str = "", broker: str = ""
    ) -> str:
        """Enters a new run and returns its name; a name that was used before is refused.

        `fleet` and the address of the `broker` are what `bitfleet resume` need not be told.
        """
        run = name or f"{time.strftime('%m%d-%H%M%S')}-{token_hex(3)}"
        if not DEVICE_ID.fullmatch(run):
            raise ConfigError(f"run name {run!r}", remedy="use 1 to 32 of a-z, 0-9 and hyphen")
        if self.database.row("SELECT 1 FROM runs WHERE run = ?", run):
            raise StateError(f"there is a run {run!r} in {self.folder}", remedy="choose another name")
        with self.database.change():
            self.database.write(
                "INSERT INTO runs (run, recipe, status, created, simulated, fleet, broker) "
                "VALUES (?, ?, 'open', ?, ?, ?, ?)",
                run, json.dumps(recipe.to_json()), time.time(), int(simulated), fleet, broker,
            )  # fmt: skip
            self.database.note("run", run, status="open", simulated=simulated, recipe=recipe.to_json())
        return run

    def reopen(self, run: str) -> None:
        """Opens a run that was stopped; the rounds that it abandoned so far do not count any more."""
        newest = last_round(self.database, run)
        if newest and self.database.row("SELECT 1 FROM runs WHERE run = ? AND status = 'stopped'", run):
            with self.database.change():
                self.database.write("UPDATE runs SET status = 'open', reason = '' WHERE run = ?", run)
                self.database.note("run", run, newest.number, status="open", reason="resumed")

    def move(self, run: str, fleet: str, broker: str) -> None:
        """Enters where a run goes on: at a broker that may be another one than before."""
        with self.database.change():
            self.database.write("UPDATE runs SET fleet = ?, broker = ? WHERE run = ?", fleet, broker, run)

    def recipe(self, run: str) -> Recipe:
        """Returns the recipe that a run was opened with."""
        row = self.database.row("SELECT recipe FROM runs WHERE run = ?", run)
        if row is None:
            raise StateError(f"run {run!r} is not in {self.folder}", remedy="`bitfleet runs` lists them")
        return recipe_from_json(json.loads(row["recipe"]), f"run {run!r}")

    def federation(
        self, run: str, fleet: str, transport: Transport, evaluator: Evaluator, clock: Callable[[], float]
    ) -> Federation:
        """Returns the run, ready to go on from wherever it stands."""
        planner = Planner(run, self.recipe(run), self.run_folder(run), self.session, self._noise_secret(), self.durable)
        planner.resume(self._last_state(run))
        registry = Registry(self.database, fleet)
        registry.recall()
        topics = Topics(fleet)
        state = RunState(run, planner, self.database, registry, transport, topics, clock, self.sign, shelf=self.shelf)
        return Federation(state, evaluator)

    def _noise_secret(self) -> bytes:
        """Returns what names the noise of private runs: from the private key, so the same after a restart."""
        return sha256(b"bitfleet noise " + (self.folder / _KEY).read_bytes()).digest()

    def _last_state(self, run: str) -> int | None:
        """Returns the newest round whose state is saved and booked."""
        row = self.database.row(
            "SELECT max(round) AS newest FROM rounds WHERE run = ? AND state IN (?, ?)",
            run, Phase.EVALUATION.value, Phase.PUBLISHED.value,
        )  # fmt: skip
        return row["newest"] if row else None


@contextmanager
def open_home(folder: Path, durable: bool = True, fleet: str = "", option: str = "--home") -> Iterator[Home]:
    """Opens a folder for one coordinator of a fleet, made if need be; raises StateError while another one has it.

    `option` is what a person named it with.
    """
    make_folder(folder, option)
    with _opened_lock(folder, option) as lock:
        if not _got(lock, fcntl.LOCK_EX):
            raise StateError(f"another coordinator uses {folder}", remedy=f"stop it, or name another {option}")
        _write_fleet(lock, fleet)
        with _opened(folder, durable, option) as home:
            home.session = _next_session(home.database)
            yield home


@contextmanager
def visit_home(folder: Path) -> Iterator[Home]:
    """Opens a folder, made if need be, beside the coordinator that may be at work there: to write, not to serve."""
    make_folder(folder, "--home")
    with _opened(folder, durable=True) as home:
        yield home


def shelf_of(folder: Path) -> Path:
    """Returns the folder with the blobs of models within a home."""
    return folder / "models" / "blobs"


def in_use(folder: Path) -> bool:
    """Tells whether a coordinator works in a folder."""
    with usable(folder / _LOCK, "--home"):
        try:
            with (folder / _LOCK).open() as lock:
                return not _got(lock, fcntl.LOCK_SH)  # whoever else looks may do so too
        except FileNotFoundError:
            return False


def at_work(folder: Path) -> str | None:
    """Returns the fleet that is served by the coordinator at work in a folder; None where none is at work."""
    return (folder / _LOCK).read_text("utf-8").strip() if in_use(folder) else None


def refuse_another_fleet(folder: Path, fleet: str) -> None:
    """Raises StateError if the coordinator at work in a folder serves another fleet."""
    served = at_work(folder)
    if served not in (None, fleet):
        remedy = "wait until it has ended, stop it, or name another --home"
        raise StateError(f"the coordinator at work in {folder} serves fleet {served!r}, not {fleet!r}", remedy=remedy)


def keys_of(folder: Path, option: str = "--home") -> tuple[str, str]:
    """Returns the public halves of the keys for plans and for models, made if need be; a coordinator may be at work."""
    make_folder(folder, option)
    return public_key(_made(folder / _KEY, option)), public_key(_made(folder / _MODEL_KEY, option))


@contextmanager
def _opened(folder: Path, durable: bool, option: str = "--home") -> Iterator[Home]:
    _made(folder / _KEY, option)
    database = open_database(folder / _DATABASE, durable=durable)
    try:
        yield Home(folder, database, 0, durable)
    finally:
        database.close()


def _opened_lock(folder: Path, option: str) -> IO[str]:
    with usable(folder / _LOCK, option):
        return (folder / _LOCK).open("a+")


def _write_fleet(lock: IO[str], fleet: str) -> None:
    try:
        os.ftruncate(lock.fileno(), 0)
        os.write(lock.fileno(), fleet.encode())
    except OSError as exc:
        raise StateError(f"{lock.name}: {exc}", remedy="see that the disk has room and may be written") from exc


def _got(lock: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _made(key: Path, option: str = "--home") -> Path:
    with usable(key, option):
        try:
            if not key.exists():
                make_key(key)
        except ConfigError:
            if not key.exists():
                raise  # else another process has just made it
    return key


def _next_session(database: Database) -> int:
    row = database.row("SELECT value FROM facts WHERE name = 'session'")
    session = int(row["value"]) + 1 if row else 1
    with database.change():
        database.write("INSERT OR REPLACE INTO facts VALUES ('session', ?)", str(session))
    return session
