"""The documents of operating say what the code does: keys, defaults, commands, states, codes; deploy/ works."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from coordinator import recipe
from coordinator.__main__ import _parser
from coordinator.front.demo import start_python
from coordinator.home import open_home
from coordinator.recipes import sections
from coordinator.rounds.phases import NEXT, Phase
from edge_agent import config
from edge_agent.__main__ import main as agent_main
from edge_agent.config import load_config
from models.archs import arch_names, tensors_of
from models.personal.settings import Personal
from models.tasks import task, task_names
from models.weights.settings import PENALTIES, SETTINGS
from tests.papers import LOCAL, Papers
from wire.messages.reports import STATES
from wire.topics import acl_file

ROOT = Path(__file__).parents[2]
_NAMES = ("operating", "recipes", "errors")
DOCUMENT = "".join((ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in _NAMES)
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL))
_SHAPES = {**SETTINGS, **PENALTIES}
CODE = re.compile(r"E-[A-Z]+(?:-[A-Z]+)*")


def tables(text: str) -> list[list[list[str]]]:
    """Returns every table as its rows without the head, each a list of cells."""
    found = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    return [[_cells(line) for line in table.splitlines()[2:]] for table in found]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| \n").split("|")]


def rows(text: str) -> list[list[str]]:
    return [row for table in tables(text) for row in table]


def default_of(item) -> str:
    if item.default is MISSING and item.default_factory is MISSING:
        return "needed"
    value = item.default if item.default is not MISSING else item.default_factory()
    if value is None:
        return "none"
    return f"`{json.dumps(list(value) if isinstance(value, tuple) else value)}`"


def told(cls, but=()) -> list[tuple[str, str]]:
    return [(f"`{item.name}`", default_of(item)) for item in fields(cls) if item.name not in but]


def test_every_key_of_the_board_with_its_default():
    found = [[(row[0], row[1]) for row in table] for table in tables(SECTIONS["The board's configuration"])]
    sections = (config.DataConfig, config.Limits, config.TrainConfig, config.LinkConfig, config.ModelConfig)
    parts = [told(cls) for cls in sections]
    assert found == [told(config.AgentConfig, ("data", "limits", "train", "link", "model", "personal")), *parts]


def test_every_key_of_a_recipe_with_its_default():
    found = [[(row[0], row[1]) for row in table] for table in tables(SECTIONS["Recipes"]) if len(table[0]) == 3]
    del found[1]  # the tasks, below
    parts = ("devices", "split", "train", "uplink", "server", "schedule", "privacy", "evaluate")
    top = [
        (name, "the file's name" if name == "`name`" else shown)
        for name, shown in told(recipe.Recipe, (*parts, "downlink", "personal"))
    ]
    assert found == [top, *(told(getattr(sections, name.capitalize())) for name in parts), told(Personal)]
    assert {item.name for item in fields(sections.Downlink)} < {item.name for item in fields(sections.Uplink)}
    assert set(recipe.recipe_names()) == set(re.findall(r"`([a-z0-9-]+)`", SECTIONS["Recipes"].split("|")[0]))


def test_every_task_and_every_net():
    names = {name: task(name).arch for name in task_names()}
    assert {row[0].strip("`"): row[2].strip("`") for row in tables(SECTIONS["Recipes"])[1]} == names
    (nets,) = re.findall(
        r"^Nets, with their sizes where none are given: (.*?)\. Tasks", SECTIONS["Recipes"], re.M | re.S
    )
    told_of = set(re.findall(r"`([a-z0-9-]+)`", nets))
    assert {name.split("-")[0] for name in told_of} == set(arch_names())
    inputs = {"cnn1d": (6, 100), "vector": (1,)}
    for name in told_of:
        short = name.split("-")[0]
        shape = inputs.get(short, (1, 28, 28))
        assert tensors_of(name, shape, 10) == tensors_of(short, shape, 10)


def test_every_setting_of_transforms_and_penalties_with_its_default():
    methods = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    found = {row[0].strip("`"): row[1] for table in tables(methods) for row in table if row[0].strip("`") in _SHAPES}
    shown = {
        name: ", ".join(
            f"`{item.name}` (needed)" if default_of(item) == "needed" else f"`{item.name} = {default_of(item)[1:-1]}`"
            for item in fields(kind)
        )
        for name, kind in _SHAPES.items()
    }
    assert found == shown


def test_the_example_is_a_configuration(tmp_path):
    (example,) = re.findall(r"```toml\n(.*?)```", SECTIONS["The board's configuration"], re.DOTALL)
    (tmp_path / "agent.toml").write_text(example)
    assert load_config(tmp_path / "agent.toml").data.task == "greenhouse"


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings} - {"-h", "--help"}


def by_name(name: str, parser: argparse.ArgumentParser) -> list[tuple[str, set[str]]]:
    """Returns (command, options) of a command, or of each of its words if it has some."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return [(f"{name} {word}", options_of(inner)) for word, inner in action.choices.items()]
    return [(name, options_of(parser))]


def test_every_status_of_a_roll_out():
    code = (ROOT / "coordinator/rollout/stages.py").read_text()
    known = set(re.findall(r'\bstatus(?:: str)? ?= ?"(\w+)"', code))
    assert {row[0] for row in rows(SECTIONS["Roll-outs"])} == {f"`{status}`" for status in known}


def test_every_command_of_the_laptop_with_its_options():
    known = {}
    for action in _parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            known = {name: options for choice in action.choices.items() for name, options in by_name(*choice)}
    found = {}
    for command, options, _ in rows(SECTIONS["Commands on the laptop"]):
        named = re.match(r"`bitfleet ([a-z]+(?: [a-z]+)?)", command)[1]
        found[named] = set(re.findall(r"`(--[a-z0-9-]+)`", options))
    for more in ("serve", "rollout resume", "rollout abort", "rollout serve"):
        found[more] |= found["resume"]
    found["rollout start"] |= found["rollout resume"]
    assert found == known


def test_every_command_of_the_board_with_its_options(capsys):
    for command, options, _ in rows(SECTIONS["Commands on the board"]):
        with pytest.raises(SystemExit, match="0"):
            agent_main([command.strip("`").split()[1], "--help"])
        shown = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
        assert set(re.findall(r"`(--[a-z-]+)`", options)) == shown
    with pytest.raises(SystemExit, match="0"):
        agent_main(["--help"])
    named = [row[0].strip("`").split()[1] for row in rows(SECTIONS["Commands on the board"])]
    shown = re.findall(r"^ {4}(\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert named == shown


def test_every_state_and_phase():
    assert [row[0] for row in rows(SECTIONS["States of a device"])] == [f"`{state}`" for state in STATES]
    phases = rows(SECTIONS["Phases of a round"])
    assert [row[0] for row in phases] == [f"`{phase.value}`" for phase in Phase]
    for phase, row in zip(Phase, phases, strict=True):
        wanted = [after.value for after in NEXT[phase]]
        assert [name for name in re.findall(r"`([a-z]+)`", row[2]) if name in set(Phase)] == wanted


def test_every_code_that_the_packages_use_and_no_other():
    used = set()
    for package in ("wire", "models", "edge_agent", "coordinator", "export"):
        for path in (ROOT / package).rglob("*.py"):
            used |= set(CODE.findall(path.read_text(encoding="utf-8")))
    listed = [row[0].strip("`") for row in rows(SECTIONS["Error codes"])]
    assert sorted(listed) == sorted(set(listed))
    assert set(listed) == used
    assert all(len(row) == 4 and row[1] and row[3] for row in rows(SECTIONS["Error codes"]))


def test_the_files_of_a_home_are_told(tmp_path):
    with open_home(tmp_path / "home"):
        made = {path.name for path in (tmp_path / "home").iterdir() if not path.name.startswith("fleet.sqlite-")}
    told_of = {name for row in rows(SECTIONS["Files"]) for name in re.findall(r"`([^`]+)`", row[0])}
    assert made <= told_of


def test_the_acl_that_ships_is_the_one_of_the_table():
    assert (ROOT / "deploy/mosquitto/acl").read_text() == acl_file("home")


def test_the_unit_is_one_for_systemd(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here")
    text = (ROOT / "deploy/bitfleet-agent.service").read_text()
    assert "bitfleet-agent run --config /etc/bitfleet/agent.toml" in text
    unit = tmp_path / "bitfleet-agent.service"
    unit.write_text(text.replace("/opt/bitfleet/bin/bitfleet-agent", sys.executable))
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def settings_of(conf: Path, folder: Path) -> dict[str, str]:
    """Returns the settings of the configuration that ships, with its files in `folder`."""
    lines = [line.split(" ", 1) for line in conf.read_text().splitlines() if line and not line.startswith("#")]
    moved = {key: value.replace("/etc/mosquitto/bitfleet/", f"{folder}/") for key, value in lines}
    for key in ("listener", "persistence_location"):
        del moved[key]
    return moved


def test_a_round_over_the_broker_that_ships(mosquitto, tmp_path):
    """TLS, passwords and the ACL as they stand in deploy/, a coordinator and a device as they stand in the document."""
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("no mosquitto_passwd here")
    papers = Papers(tmp_path)
    papers.issue("broker", LOCAL)
    ca = papers.ca_file
    shutil.copy(ROOT / "deploy/mosquitto/acl", tmp_path / "acl")
    for at, name in enumerate(("coordinator", "dev-1")):
        (tmp_path / name).write_text(f"secret of {name}\n")
        words = ["-b", *(["-c"] if at == 0 else []), str(tmp_path / "passwords"), name, f"secret of {name}"]
        subprocess.run(["mosquitto_passwd", *words], check=True, capture_output=True)
    broker = mosquitto(**settings_of(ROOT / "deploy/mosquitto/mosquitto.conf", tmp_path))
    (tmp_path / "agent.toml").write_text(f"""
device = "dev-1"
fleet = "home"
broker = "{broker.url}"
state_dir = "{tmp_path}/state"
[data]
task = "echo"
[link]
username = "dev-1"
password_file = "{tmp_path}/dev-1"
ca_file = "{ca}"
""")
    serve = ["serve", "--home", str(tmp_path / "home"), "--fleet", "home", "--broker", broker.url, "--json"]
    serve += ["--username", "coordinator", "--password-file", str(tmp_path / "coordinator"), "--ca-file", str(ca)]
    serve += ["--recipe", "echo", "--devices", "1", "--rounds", "2", "--set", "model=vector-100"]
    with start_python(tmp_path / "agent.log", "edge_agent", "run", "--config", str(tmp_path / "agent.toml")):
        done = subprocess.run(
            [sys.executable, "-m", "coordinator", *serve], capture_output=True, text=True, check=False, timeout=60
        )
    assert done.returncode == 0, done.stderr + (tmp_path / "agent.log").read_text()
    assert json.loads(done.stdout)["rounds"] == 2
