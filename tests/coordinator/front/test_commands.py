"""The commands of the coordinator as a person types them: on a finished run, on none, on an interrupted one."""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from coordinator.__main__ import main
from coordinator.front.commands import print_facts
from coordinator.front.demo import start_python
from coordinator.home import in_use
from coordinator.state.database import open_database
from tests.waiting import WAIT_S
from wire.errors import StateError

ROOT = Path(__file__).parents[3]


def output(capsys, *words):
    """Returns the exit status of a command, and what it printed as JSON if it did."""
    capsys.readouterr()
    code = main(list(words))
    printed = capsys.readouterr()
    return code, json.loads(printed.out) if "--json" in words and not code else printed.err + printed.out


def test_status(finished, capsys):
    code, facts = output(capsys, "status", "--home", str(finished.home), "--json")
    assert code == 0
    assert facts == json.loads((finished.folder / "report.json").read_text())
    assert output(capsys, "status", "--home", str(finished.home), "--json", "--run", finished.run) == (0, facts)
    code, text = output(capsys, "status", "--home", str(finished.home))
    assert f"model_digest       {finished.model_digest}" in text
    assert re.search("^rounds_done +2$", text, re.M)
    assert facts["reason"] == ""


def test_of_long_lists_a_person_is_shown_the_end(capsys):
    options = argparse.Namespace(json=False)
    print_facts(options, {"accuracy_by_round": [0.1, 0.5, None, 0.91, 0.92, 0.934567], "waiting_for": ["a"]})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "accuracy_by_round  ... 0.5, unknown, 0.91, 0.92, 0.9346 (the last 5 of 6; --json has all)"
    assert printed[1] == "waiting_for        ['a']"


def test_devices(finished, capsys):
    code, devices = output(capsys, "devices", "--home", str(finished.home), "--json")
    assert code == 0
    assert [(device["fleet"], device["device"]) for device in devices] == [("test", "dev-0"), ("test", "dev-1")]
    assert {device["info"]["task"] for device in devices} == {"digits"}
    text = output(capsys, "devices", "--home", str(finished.home))[1]
    assert re.search(r"dev-1\W+test\W+digits\W+", text), text


def test_what_devices_say_is_shown_as_it_is_and_commands_no_terminal(tmp_path, capsys):
    database = open_database(tmp_path / "fleet.sqlite")
    with database.change():
        reason = "[/red] no [bold]disk\x1b[2J"
        database.write("INSERT INTO devices VALUES ('test', 'd-1', 'idle', 1, 'E-DISK', ?, '{}', 0, 0)", reason)
    database.close()
    code, text = output(capsys, "devices", "--home", str(tmp_path))
    assert code == 0
    assert all(part in text for part in ("[/red]", "[bold]disk?[2J"))
    assert "\x1b" not in text


def test_runs(finished, capsys):
    code, runs = output(capsys, "runs", "--home", str(finished.home), "--json")
    assert code == 0
    assert runs == [json.loads((finished.folder / "report.json").read_text())]
    assert output(capsys, "runs", "--home", str(finished.home), "--json", "--run", "other") == (0, [])


@pytest.mark.parametrize("command", ["status", "devices", "runs", "resume"])
def test_a_folder_that_is_none(tmp_path, capsys, command):
    code, text = output(capsys, command, "--home", str(tmp_path / "none"))
    assert (code, text.startswith("bitfleet: E-STATE: ")) == (1, True)
    assert "fleet.sqlite: there is no such file; name the folder that" in text
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("words", [["serve", "--recipe", "echo"], ["keys"]])
def test_a_home_that_cannot_be_made_is_named(tmp_path, capsys, words):
    (tmp_path / "file").write_text("no folder")
    code, text = output(capsys, *words, "--home", str(tmp_path / "file" / "home"))
    assert (code, text.count("\n")) == (1, 1)
    assert f"E-STATE: {tmp_path}/file/home cannot be used: Not a directory; name a folder of your own" in text


@pytest.mark.parametrize(
    ("words", "option"),
    [(["broker"], "--folder"), (["demo", "--recipe", "echo"], "--dir"), (["simulate", "--recipe", "echo"], "--dir")],
)
def test_a_folder_that_cannot_be_made_is_named(tmp_path, capsys, words, option):
    (tmp_path / "file").write_text("no folder")
    for folder, said in (("file/folder", "Not a directory"), ("file", "File exists")):
        code, text = output(capsys, *words, option, str(tmp_path / folder))
        assert (code, text.count("bitfleet: ")) == (1, 1)
        assert re.search(rf"E-STATE: {tmp_path}/file\S* cannot be used: ({said}|Not a directory); name a folder", text)
        assert f"with {option}, or see whose" in text


@pytest.mark.parametrize("command", ["demo", "simulate"])
def test_figures_that_could_not_be_left_are_refused_before_the_work(tmp_path, capsys, command):
    words = [command, "--recipe", "echo", "--dir", str(tmp_path / "run"), "--json"]
    code, text = output(capsys, *words, str(tmp_path / "no" / "x.json"))
    assert (code, f"E-CONFIG: --json {tmp_path}/no/x.json: there is no folder {tmp_path}/no; make" in text) == (1, True)
    code, text = output(capsys, *words, str(tmp_path))
    assert (code, f"E-CONFIG: --json {tmp_path} is a folder; name a file" in text) == (1, True)
    assert not (tmp_path / "run").exists()


def test_figures_for_a_place_that_may_not_be_entered_or_written_are_refused_before_the_work(
    tmp_path, capsys, monkeypatch
):
    (tmp_path / "x.json").write_text("old")
    words = ["demo", "--recipe", "echo", "--dir", str(tmp_path / "run"), "--json"]
    real, is_dir = os.access, Path.is_dir

    def closed(path):
        if tmp_path / "shut" in (path, *path.parents):
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and real(path, mode))  # root may do all
    monkeypatch.setattr(Path, "is_dir", closed)
    for name, said in (
        ("shut/x/y.json", f"there is no folder {tmp_path}/shut/x; make it first, or see whether you may enter it"),
        ("x.json", "x.json may not be written; name a file that you may write"),
        ("new.json", f"{tmp_path} may not be written; name a file that you may write"),
    ):
        code, text = output(capsys, *words, str(tmp_path / name))
        assert (code, f"E-CONFIG: --json {tmp_path / name}" in text, said in text) == (1, True, True), text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["none/key", "file/key"])
def test_a_key_that_cannot_be_made_is_not_said_to_be_there(tmp_path, capsys, name):
    (tmp_path / "file").write_text("no folder")
    code, text = output(capsys, "keys", "--home", str(tmp_path / "home"), "--key", str(tmp_path / name))
    assert (code, text.count("\n"), "never overwritten" in text) == (1, 1, False)
    assert f"E-CONFIG: key {tmp_path}/{name} cannot be made: No" in text
    assert "see that its folder is there" in text


def test_a_lock_that_cannot_be_opened_is_named(tmp_path, capsys):
    (tmp_path / "coordinator.lock").mkdir()
    code, text = output(capsys, "serve", "--recipe", "echo", "--home", str(tmp_path))
    assert (code, "coordinator.lock cannot be used: Is a directory; name" in text) == (1, True)
    with pytest.raises(StateError, match=r"coordinator\.lock cannot be used"):
        in_use(tmp_path)


def test_a_home_that_may_not_be_entered_is_named(tmp_path, capsys, monkeypatch):
    def closed(path, **words):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as home:
        home.setattr(Path, "exists", closed)
        code, text = output(capsys, "keys", "--home", str(tmp_path))
    assert (code, "round.key cannot be used: Permission denied; name" in text) == (1, True)


def test_a_database_that_may_not_be_looked_at_is_not_called_missing(tmp_path, capsys, monkeypatch):
    def closed(path, **words):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", closed)
    code, text = output(capsys, "status", "--home", str(tmp_path / "none"))
    assert (code, "fleet.sqlite: unable to open database file; name" in text) == (1, True)


def test_a_run_that_is_none(finished, capsys):
    code, text = output(capsys, "status", "--home", str(finished.home), "--run", "nothing")
    assert (code, "`bitfleet runs` lists what there is" in text) == (1, True)


def test_a_folder_without_runs(tmp_path, capsys):
    open_database(tmp_path / "fleet.sqlite").close()
    code, text = output(capsys, "status", "--home", str(tmp_path))
    assert (code, "there are no runs here" in text) == (1, True)
    assert output(capsys, "runs", "--home", str(tmp_path), "--json") == (0, [])


def test_resume_with_nothing_to_resume(finished, capsys):
    code, text = output(capsys, "resume", "--home", str(finished.home))
    assert (code, "no open run" in text) == (1, True)
    code, text = output(capsys, "resume", "--home", str(finished.home), finished.run)
    assert (code, f"run {finished.run!r} is done" in text) == (1, True)


def served(tmp_path, *words):
    """Returns the exit status and the errors of `serve`, in a process of its own: one that works would not end."""
    command = [sys.executable, "-m", "coordinator", "serve", "--home", str(tmp_path / "home"), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("setting", ["model=nonsense", "train.batch=0", "rounds=0"])
def test_a_recipe_that_cannot_run_opens_no_run(tmp_path, setting):
    code, text = served(tmp_path, "--set", setting)
    assert (code, text.startswith("bitfleet: E-CONFIG: ")) == (1, True)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--broker", "http://x"], "mqtt://"),
        (["--username", "me", "--password-file", "/nonexistent/file"], "is not a file"),
        (["--ca-file", "/nonexistent/ca"], "TLS files but no TLS"),
    ],
)
def test_a_link_that_cannot_work(tmp_path, words, message):
    code, text = served(tmp_path, "--recipe", "echo", *words)
    assert (code, message in text) == (1, True)


def test_words_that_are_wrong(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["server"])
    assert "invalid choice" in capsys.readouterr().err


def words(tmp_path, broker):
    return ["--home", str(tmp_path / "home"), "--fleet", "test", "--broker", broker.url]


def phase_of(home):
    try:
        database = open_database(home / "fleet.sqlite", read_only=True)
    except StateError:
        return None
    row = database.row("SELECT state FROM rounds")
    database.close()
    return row["state"] if row else None


def test_a_run_that_was_interrupted_is_resumed_to_its_end(broker, tmp_path, capsys):
    """`resume` is typed as the interrupted process says: it knows the fleet and the broker."""
    home = tmp_path / "home"
    recipe = ["--recipe", "echo", "--devices", "1", "--rounds", "2", "--set", "model=vector-100"]
    serving = subprocess.Popen(
        [sys.executable, "-m", "coordinator", "serve", *words(tmp_path, broker), *recipe],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    ends_s = monotonic() + WAIT_S
    while phase_of(home) != "selection" and monotonic() < ends_s:
        sleep(0.05)
    code, facts = output(capsys, "status", "--home", str(home), "--json")
    assert (code, facts["status"], facts["round"], facts["phase"]) == (0, "open", 0, "selection")
    second = subprocess.run(
        [sys.executable, "-m", "coordinator", "resume", *words(tmp_path, broker)],
        cwd=ROOT, capture_output=True, text=True, timeout=WAIT_S, check=False,
    )  # fmt: skip
    assert (second.returncode, "another coordinator uses" in second.stderr) == (1, True)
    serving.send_signal(signal.SIGINT)
    _, said = serving.communicate(timeout=WAIT_S)
    assert (serving.returncode, f"stopped; `bitfleet resume --home {home}` goes on where it was" in said) == (130, True)

    config = tmp_path / "agent.toml"
    config.write_text(
        f'device = "dev-1"\nfleet = "test"\nbroker = "{broker.url}"\nstate_dir = "{tmp_path / "state"}"\n'
        '[data]\ntask = "echo"\n[train]\nnice = 0\n'
    )
    with start_python(tmp_path / "agent.log", "edge_agent", "run", "--config", str(config)):
        resumed = subprocess.run(
            [sys.executable, "-m", "coordinator", "resume", "--home", str(home), "--json"],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    figures = json.loads(resumed.stdout)
    assert (figures["run"], figures["status"], figures["rounds"]) == (facts["run"], "done", 2)
    assert figures == json.loads((home / "runs" / facts["run"] / "report.json").read_text())
    assert output(capsys, "resume", "--home", str(home))[0] == 1
