from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest

from coordinator.__main__ import main
from simulation.executor import InlineExecutor
from simulation.run import Order
from simulation.sweep import Sweep, table_of
from tests.public_names import ROOT
from tests.simulation.orders import order
from wire.errors import ConfigError

ECHO = ("--recipe", "echo", "--rounds", "2", "--set", 'model="vector-20"')


def test_a_run_leaves_its_figures_and_says_them(tmp_path, capsys):
    done = main(["simulate", *ECHO, "--devices", "6", "--clients-per-round", "2", "--dir", str(tmp_path / "run"),
                 "--seed", "5", "--json", str(tmp_path / "figures.json")])  # fmt: skip
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert done == 0
    assert (figures["rounds"], figures["devices"], figures["clients_per_round"]) == (2, 6, 2)
    shown = capsys.readouterr().out
    assert figures["model_digest"] in shown
    assert "round 1: published; 2 of 2 done" in shown


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--devices", "3", "--clients-per-round", "4"], "3 devices, and a round needs 4"),
        (["--devices", "-1"], "--devices = -1"),
        (["--workers", "-2"], "--workers = -2"),
        (["--workers", "1", "--ray", "auto"], "give one of them"),
        (["--recipe", "fedavgg"], "recipe 'fedavgg'"),
        (["--set", "raunds=3"], "did you mean 'rounds'"),
        (["--set", "split.examples=-3"], "split.examples = -3"),
        (["--json", "no/such/folder/f.json"], "there is no folder"),
        (["--plot", "no/such/folder/f.png"], "there is no folder"),
        (["--plot", "picture.doc"], "end the name in .png"),
        (["--resume", "--rounds", "3"], "--resume with --rounds"),
        (["--resume", "--seed", "3"], "--resume with --seed"),
    ],
)
def test_wrong_words_are_refused_by_name(tmp_path, monkeypatch, capsys, words, reason):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", *words, "--dir", str(tmp_path / "run")]) == 1
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "run" / "home").exists()


def test_resume_without_a_run_says_where_it_looked(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "--resume"]) == 1
    assert str(tmp_path / "runs") in capsys.readouterr().err
    assert main(["simulate", "--resume", "--dir", str(tmp_path / "none")]) == 1
    assert "fleet.sqlite" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on_and_it_does(tmp_path, capsys):
    words = ["simulate", *ECHO, "--rounds", "40", "--workers", "1", "--dir", str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-m", "coordinator", *words], cwd=ROOT, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)  # fmt: skip
    ends_s = time.monotonic() + 60
    while not list((tmp_path / "devices").glob("device-0?/standing.json")) and time.monotonic() < ends_s:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    command = f"bitfleet simulate --resume --workers 1 --dir {tmp_path}"
    assert err == f"bitfleet: stopped; `{command}` goes on where it was\n"
    assert main(["simulate", "--resume", "--dir", str(tmp_path)]) == 0
    assert "rounds             40" in capsys.readouterr().out


def stop(*_):
    raise KeyboardInterrupt


def said(capsys, *words):
    """Returns the command that Ctrl-C names, as a shell reads it."""
    assert main([str(word) for word in words]) == 130
    return shlex.split(re.fullmatch(r"bitfleet: stopped; `(.*)` goes on where it was\n", capsys.readouterr().err)[1])


def test_a_stopped_simulation_goes_on_with_what_its_folder_does_not_know(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "my run"
    monkeypatch.setattr("simulation.run.World.run", stop)
    words = ["--dir", folder, "--json", tmp_path / "my figures.json"]
    for where in (["--workers", "1"], ["--ray", "local"]):
        monkeypatch.setattr("simulation.run._executor", lambda order: InlineExecutor())
        command = said(capsys, "simulate", *ECHO, *where, *words)
        assert command == ["bitfleet", "simulate", "--resume", *where, *map(str, words)]


def test_a_simulation_that_was_stopped_before_it_began_does_not_go_on(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("simulation.run.provide_data", stop)
    assert main(["simulate", *ECHO, "--dir", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "bitfleet: stopped; nothing was begun\n"


def test_a_stopped_sweep_goes_on_with_the_same_words(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("simulation.sweep.sweep", stop)
    words = ["--recipes", "echo,fedavg", "--seeds", "4,5", "--clients-per-round", "2", "--rounds", "3"]
    words += ["--set", "server.rate=0.5", "--set", 'model="vector-30"', "--workers", "2"]
    command = said(capsys, "sweep", *words, "--dir", tmp_path / "my runs")
    assert command == ["bitfleet", "sweep", *words, "--dir", str(tmp_path / "my runs")]


def test_a_sweep_does_every_run_once(tmp_path, capsys):
    recipe = tmp_path / "other.toml"
    recipe.write_text('task = "echo"\nmodel = "vector-30"\n')
    words = ["sweep", "--recipes", f"echo,{recipe}", "--seeds", "1,2", "--rounds", "1", "--clients-per-round", "2"]
    words += ["--dir", str(tmp_path / "runs"), "--json", str(tmp_path / "figures.json")]
    assert main(words) == 0
    first = json.loads((tmp_path / "figures.json").read_text())
    assert [(each["recipe"], each["seed"]) for each in first["runs"]] == [
        ("echo", 1), ("echo", 2), ("other", 1), ("other", 2)]  # fmt: skip
    assert len({each["model_digest"] for each in first["runs"]}) == 4
    assert [(row["recipe"], row["seeds"]) for row in first["table"]] == [("echo", 2), ("other", 2)]
    capsys.readouterr()
    assert main(words) == 0
    assert json.loads((tmp_path / "figures.json").read_text()) == first
    assert "round" not in capsys.readouterr().out
    assert main([*words, "--set", "server.rate=0.5"]) == 1
    assert "holds another run" in capsys.readouterr().err


def test_a_sweep_gives_the_seed_to_the_split_as_well(tmp_path):
    ordered = dict(Sweep((order(tmp_path).recipe,), (3, 4), tmp_path).orders())
    assert [(name, each.recipe.seed, each.recipe.split.seed) for name, each in ordered.items()] == [
        ("fedavg-3", 3, 3), ("fedavg-4", 4, 4)]  # fmt: skip
    assert all(isinstance(each, Order) for each in ordered.values())


@pytest.mark.parametrize(("count", "seeds"), [(0, (1,)), (1, ()), (2, (1,)), (1, (1, 1))])
def test_a_sweep_of_nothing_or_of_the_same_twice_is_refused(tmp_path, count, seeds):
    with pytest.raises(ConfigError, match=r"give --recipes|name each of them once"):
        Sweep((order(tmp_path).recipe,) * count, seeds, tmp_path)


def test_wrong_seeds_are_refused(tmp_path, capsys):
    assert main(["sweep", "--recipes", "echo", "--seeds", "1,x", "--dir", str(tmp_path)]) == 1
    assert "--seeds 1,x" in capsys.readouterr().err


def test_the_table_has_mean_and_deviation():
    runs = [{"recipe": "a", "accuracy": value, "bytes_up": 10, "bytes_down": 20} for value in (0.5, 0.7)]
    runs += [{"recipe": "b", "accuracy": None, "bytes_up": 1, "bytes_down": 2}]
    first, second = table_of(runs)
    assert (first["accuracy"], round(first["deviation"], 4), first["seeds"]) == (0.6, 0.1414, 2)
    assert (second["accuracy"], second["deviation"], second["bytes_down"]) == (None, None, 2)


def test_why_a_run_came_to_nothing_is_said_once(tmp_path, capsys):
    words = ["simulate", "--recipe", "fedavg", "--task", "digits", "--rounds", "2", "--clients-per-round", "2"]
    words += ["--set", 'model="mlp-8"', "--set", "split.examples=1"]
    assert main([*words, "--dir", str(tmp_path)]) == 1
    shown = capsys.readouterr().out
    assert shown.count("declined, E-CONFIG: 2 parts of 1 examples") == 1
    assert "status             stopped" in shown
