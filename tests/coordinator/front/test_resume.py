"""Which run the commands mean, what `status` tells of one that waits, and which runs go on: on made-up ledgers."""

from __future__ import annotations

import json

import pytest

from coordinator.__main__ import main
from coordinator.front import commands
from coordinator.front.report import figures_of
from coordinator.home import open_home
from coordinator.rounds.phases import begin_round, say_why
from tests.coordinator.runs import echo_recipe


@pytest.fixture
def home(tmp_path):
    with open_home(tmp_path / "home") as home:
        yield home


def entered(home, name, status="open", created=0):
    """Enters a run that ended with `status`, and left its report then."""
    home.new_run(echo_recipe(), name=name)
    with home.database.change():
        home.database.write("UPDATE runs SET status = ?, created = ? WHERE run = ?", status, created, name)
        begin_round(home.database, name, 0, "base")
        if status != "open":
            home.database.note("run", name, status=status, reason="why")
    folder = home.run_folder(name)
    folder.mkdir(parents=True)
    if status != "open":
        (folder / "report.json").write_text("{}")


@pytest.fixture
def served(monkeypatch):
    """Returns the list of runs that were served instead of serving them, and whether they were to be opened again."""
    runs = []
    monkeypatch.setattr(commands, "serve", lambda _, recipe, run, reopen: runs.append((run, reopen)) or run)
    return runs


def status_of(home, capsys, *words):
    capsys.readouterr()
    assert main(["status", "--home", str(home.folder), "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_newest_run_is_the_one_that_was_entered_last_whatever_the_clock_said(home, capsys, served):
    entered(home, "first", created=2_000_000_000)
    entered(home, "second", created=1_000_000_000)
    assert status_of(home, capsys)["run"] == "second"
    main(["runs", "--home", str(home.folder), "--json"])
    assert [run["run"] for run in json.loads(capsys.readouterr().out)] == ["first", "second"]
    main(["resume", "--home", str(home.folder)])
    assert served == [("second", False)]


def test_status_says_what_a_round_waits_for(home, capsys):
    entered(home, "one")
    with home.database.change():
        say_why(home.database, begin_round(home.database, "one", 1, "base"), "1 of 2 devices are here")
    facts = status_of(home, capsys)
    assert (facts["status"], facts["phase"], facts["reason"]) == ("open", "selection", "1 of 2 devices are here")


def test_a_run_that_was_stopped_goes_on_if_it_is_named_and_only_then(home, capsys, served):
    entered(home, "one", "stopped")
    assert main(["resume", "--home", str(home.folder)]) == 1
    assert "no open run" in capsys.readouterr().err
    assert main(["resume", "--home", str(home.folder), "one"]) == 1
    assert served == [("one", True)]
    assert "`bitfleet resume one` goes on with it" in capsys.readouterr().err  # it is stopped still


def test_a_run_that_is_done_is_refused(home, capsys, served):
    entered(home, "one", "done")
    assert main(["resume", "--home", str(home.folder), "one"]) == 1
    assert (served, "run 'one' is done" in capsys.readouterr().err) == ([], True)


def test_a_run_that_was_opened_again_is_open(home):
    entered(home, "one", "stopped")
    assert [figures_of(home.database.ledger("one"))[name] for name in ("status", "reason")] == ["stopped", "why"]
    home.reopen("one")
    assert [figures_of(home.database.ledger("one"))[name] for name in ("status", "reason")] == ["open", ""]
