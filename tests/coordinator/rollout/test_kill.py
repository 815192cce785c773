"""Killed before and after every change of the database, a roll-out goes on to the same end, and no step twice.

Beside a run it is killed at the run's changes too, and the run ends with the same model.
"""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from coordinator.rollout.book import RolloutBook
from coordinator.state.database import _SCHEMA, Database


class Killed(BaseException):
    """What no code catches: as near to kill -9 as one process comes."""


class Assassin:
    """Counts the changes of a database, and kills before or after the one it is set to."""

    def __init__(self, monkeypatch):
        self.count, self.at, self.when = 0, -1, ""
        real = Database.change

        @contextmanager
        def change(database):
            self.count += 1
            mine = self.count == self.at
            with real(database):
                yield
                if mine and self.when == "before":
                    raise Killed
            if mine and self.when == "after":
                raise Killed

        monkeypatch.setattr(Database, "change", change)


ENDS = {
    "done": (
        ("healthy", "unfit", "healthy", "healthy", "silent"),
        {"without": ("late",), "stage_s": 60.0},
        {"dev-0": "healthy", "dev-1": "unfit", "dev-2": "healthy", "dev-3": "healthy", "dev-4": "late"},
        {"dev-0", "dev-1", "dev-2", "dev-3", "dev-4"},
    ),
    "stopped": (
        ("healthy", "silent", "rolling back", "healthy", "healthy", "healthy", "healthy"),
        {},
        {"dev-0": "healthy", "dev-1": "", "dev-2": "failed", **{f"dev-{at}": "" for at in range(3, 7)}},
        {"dev-0"},
    ),
}


def carry_out(made, more):
    """Starts or goes on, as a person would with `start` and then `resume`; returns the end."""
    book = RolloutBook(made.home.database)
    made.name = book.unfinished() or (book.newest() if book.versions() else made.start(**more))
    made.open()
    return made.finish()


def check(made, end):
    _, _, outcomes, offered = ENDS[end]
    assert made.outcomes() == outcomes
    made.settle()
    assert made.offered() == offered
    assert len(made.home.database.rows("SELECT * FROM rollouts")) == 1
    assert RolloutBook(made.home.database).withdrawals("test") == []
    moves = made.noted("rollout")
    assert [line["status"] for line in moves][-1] == end
    stages = [line["stage"] for line in moves if "stage" in line]
    assert stages == sorted(stages, key=["canary", "third", "all"].index)
    out = [line["device"] for line in made.noted("offer") if line["offer"] == "out"]
    assert len(out) == len(set(out))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside a run"])
@pytest.mark.parametrize("end", ENDS)
def test_killed_at_every_change(scene, monkeypatch, end, beside, when):
    scripts, more, _, _ = ENDS[end]
    assassin = Assassin(monkeypatch)
    whole = scene(*scripts, beside=beside)
    assert carry_out(whole, more) == end
    check(whole, end)
    changes, model = assassin.count, whole.model if beside else ""
    assert changes >= (40 if beside else 12)
    for at in range(1, changes + 1):
        wipe(whole.home.database)
        assassin.count, assassin.at, assassin.when = 0, at, when
        made = scene(*scripts, beside=beside)
        with pytest.raises(Killed):
            carry_out(made, more)
        assassin.at = -1
        assert carry_out(made, more) == end, (at, when)
        check(made, end)
        assert not beside or made.model == model


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_while_a_person_aborts(scene, monkeypatch, when):
    assassin = Assassin(monkeypatch)
    made = scene("stuck", "healthy")
    for at in (1, 2):
        wipe(made.home.database)
        made = scene("stuck", "healthy")
        made.start()
        made.open()
        made.settle()
        made.wish("abort")
        assassin.count, assassin.at, assassin.when = 0, at, when
        with pytest.raises(Killed):
            made.finish()
        assassin.at = -1
        made.open()
        assert made.finish() == "aborted"
        assert made.offered() == set()


def wipe(database):
    """Forgets all runs and roll-outs, as in a new home; the ledger, which never forgets, is made anew."""
    tables = ("rollouts", "rollout_devices", "manifests", "runs", "rounds", "invited", "updates", "refused", "devices")
    database.link.executescript("DROP TABLE ledger;" + "".join(f"DELETE FROM {table};" for table in tables) + _SCHEMA)
