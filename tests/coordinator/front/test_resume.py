"""Which run the commands mean, what `status` tells of one that waits, and which runs go on: on made-up ledgers."""

from __future__ import annotations

import json

import pytest

from coordinator.__main__ import main
from coordinator.front import commands, rollouts
from coordinator.front.report import figures_of
from coordinator.home import open_home
from coordinator.rounds.phases import begin_round, say_why
from coordinator.state.registry import Registry
from tests.coordinator.runs import echo_recipe
from wire.messages.reports import DeviceState


@pytest.fixture
def home(tmp_path):
    with open_home(tmp_path / "home") as home:
        yield home


def entered(home, name, status="open", created=0, **place):
    """Enters a run that ended with `status`, and left its report then."""
    home.new_run(echo_recipe(), name=name, **place)
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


@pytest.fixture
def places(monkeypatch):
    """Returns the list of fleets and brokers with which runs were served instead of serving them."""
    found = []
    monkeypatch.setattr(commands, "serve", lambda serving, _, run, reopen: found.append(serving) or run)
    return found


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
    assert (
        f"`bitfleet resume one --home {home.folder}` goes on with it" in capsys.readouterr().err
    )  # it is stopped still


def test_a_run_that_is_done_is_refused(home, capsys, served):
    entered(home, "one", "done")
    assert main(["resume", "--home", str(home.folder), "one"]) == 1
    assert (served, "run 'one' is done" in capsys.readouterr().err) == ([], True)


def test_a_run_that_was_opened_again_is_open(home):
    entered(home, "one", "stopped")
    assert [figures_of(home.database.ledger("one"))[name] for name in ("status", "reason")] == ["stopped", "why"]
    home.reopen("one")
    assert [figures_of(home.database.ledger("one"))[name] for name in ("status", "reason")] == ["open", ""]


GARDEN = {"fleet": "garden", "broker": "mqtts://garden.example:8884"}


def test_a_run_goes_on_with_its_own_fleet_at_its_own_broker(home, capsys, places):
    entered(home, "one", **GARDEN)
    main(["resume", "--home", str(home.folder), "--username", "me"])
    (serving,) = places
    assert (serving.fleet, serving.broker) == ("garden", GARDEN["broker"])
    assert (serving.link.host, serving.link.port, serving.link.username) == ("garden.example", 8884, "me")


def test_another_fleet_is_refused_by_name_and_another_broker_is_not(home, capsys, places):
    entered(home, "one", **GARDEN)
    assert main(["resume", "--home", str(home.folder), "--fleet", "home"]) == 1
    assert "run 'one' is of fleet 'garden', not 'home'; leave --fleet out" in capsys.readouterr().err
    main(["resume", "--home", str(home.folder), "--fleet", "garden", "--broker", "mqtt://moved"])
    assert [(serving.fleet, serving.broker) for serving in places] == [("garden", "mqtt://moved")]
    home.move("one", "garden", "mqtt://moved")
    main(["resume", "--home", str(home.folder)])
    assert places[-1].broker == "mqtt://moved"


def test_a_home_of_before_fleets_is_given_them(tmp_path, capsys, places):
    """Its runs are of the fleet that is named, else of `home`; its devices are heard of anew."""
    with open_home(tmp_path / "home") as home:
        entered(home, "old")
        home.database.link.executescript("""
        DROP TABLE runs; DROP TABLE devices;
        CREATE TABLE runs (run TEXT PRIMARY KEY, recipe TEXT NOT NULL, status TEXT NOT NULL,
            reason TEXT NOT NULL DEFAULT '', created REAL NOT NULL, simulated INTEGER NOT NULL);
        CREATE TABLE devices (device TEXT PRIMARY KEY, state TEXT NOT NULL, session INTEGER NOT NULL,
            code TEXT NOT NULL, reason TEXT NOT NULL, info TEXT NOT NULL, first_seen REAL NOT NULL,
            last_seen REAL NOT NULL);
        INSERT INTO runs VALUES ('old', '{}', 'open', '', 0, 0);
        INSERT INTO devices VALUES ('pi', 'ready', 1, '', '', '{}', 0, 0);
        """)
    words = ["--home", str(tmp_path / "home")]
    assert main(["devices", *words, "--json"]) == 0  # who only looks changes nothing
    assert [(one["fleet"], one["device"]) for one in json.loads(capsys.readouterr().out)] == [("", "pi")]
    main(["resume", *words])
    main(["resume", *words, "--fleet", "garden"])
    assert [(serving.fleet, serving.broker) for serving in places] == [
        ("home", "mqtt://127.0.0.1:1883"), ("garden", "mqtt://127.0.0.1:1883")]  # fmt: skip
    for _ in range(2):
        with open_home(tmp_path / "home") as home:
            home.move("old", "garden", "mqtt://broker")
            row = home.database.row("SELECT * FROM runs")
            assert (row["run"], row["status"], row["fleet"]) == ("old", "open", "garden")
            registry = Registry(home.database, "garden")
            registry.recall()
            assert registry.devices == {}
            registry.heard_state("pi", DeviceState("ready", 1))
            with home.database.change():
                registry.save()
            home.database.link.execute("DELETE FROM devices")


def test_two_fleets_may_have_a_device_of_the_same_name(home):
    for fleet, task in (("garden", "digits"), ("house", "echo")):
        registry = Registry(home.database, fleet)
        registry.recall()
        registry.heard_info("pi", {"task": task})
        with home.database.change():
            registry.save()
    for fleet, task in (("garden", "digits"), ("house", "echo")):
        registry = Registry(home.database, fleet)
        registry.recall()
        assert registry.devices["pi"].info == {"task": task}


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["serve", "--recipe", "echo", "--fleet", "garden"], "bitfleet resume --home {home}"),
        (["resume", "--ca-file", "{home}/round.key"], "bitfleet resume --home {home} --ca-file {home}/round.key"),
        (["resume", "one"], "bitfleet resume one --home {home}"),
    ],
)
def test_ctrl_c_says_the_command_that_goes_on(home, capsys, monkeypatch, words, command):
    entered(home, "one", **GARDEN)
    monkeypatch.setattr(commands, "serve", interrupted)
    words = [word.format(home=home.folder) for word in words]
    assert main([*words, "--home", str(home.folder)]) == 130
    said = f"bitfleet: stopped; `{command.format(home=home.folder)}` goes on where it was\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("words", [["broker"], ["demo"], ["data"], ["keys"]])
def test_what_cannot_go_on_is_only_stopped(tmp_path, capsys, monkeypatch, words):
    for name in ("start_broker", "run_demo", "fetch_command"):
        monkeypatch.setattr(commands, name, interrupted)
    monkeypatch.setattr(rollouts, "keys_of", interrupted)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(words) == 130
    assert capsys.readouterr().err == "bitfleet: stopped\n"


def interrupted(*_, **__):
    raise KeyboardInterrupt


def test_a_run_of_an_older_version_with_settings_refused_today_says_so_and_is_left_as_it_was(home, capsys):
    entered(home, "old", "stopped")
    recipe = echo_recipe().to_json()
    recipe["schedule"]["start"] = 4
    with home.database.change():
        home.database.write("UPDATE runs SET recipe = ?", json.dumps(recipe))
    home.folder.joinpath("coordinator.lock").unlink()  # the fixture has it
    assert main(["resume", "old", "--home", str(home.folder), "--broker", "mqtt://127.0.0.1:1"]) == 1
    err = capsys.readouterr().err
    assert "E-CONFIG: run 'old' has settings that this version refuses: schedule.start = 4 with rule" in err
    assert "start a new run, with a new name" in err
    assert "leave start out" not in err
    row = home.database.row("SELECT status, broker FROM runs")
    assert (row["status"], row["broker"]) == ("stopped", "")
