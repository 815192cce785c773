"""The demo as a person starts it: a whole federation of real processes, and the figures it leaves."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from coordinator.front.demo import DemoOptions, agent_config, run_demo
from coordinator.front.live import Progress
from coordinator.recipe import load_recipe
from edge_agent.config import load_config
from tests.conftest import started
from tests.coordinator.runs import RUN, echo_recipe, new_run
from tests.end_to_end.rollout.model_board import Board, check_answers

ROOT = Path(__file__).parents[3]
KEYS = ("task", "recipe", "broker", "devices", "rounds", "accuracy", "accuracy_by_round", "bytes_up", "bytes_down")
KEYS += ("params", "seconds", "refused", "model_digest", "run_dir")


def demo(folder, *words):
    figures = folder / "figures.json"
    files = ["--dir", str(folder / "my demo"), "--json", str(figures)]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "coordinator", "demo", *files, *words],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(figures.read_text()), done.stdout


@pytest.mark.parametrize("kind", ["mosquitto", "iotcore"])
def test_a_whole_federation(tmp_path, kind):
    started(kind, tmp_path / "probe").stop()
    size = ["--set", "model=vector-1000"]
    facts, text = demo(tmp_path, "--broker", kind, "--recipe", "echo", "--devices", "2", "--rounds", "3", *size)
    assert not [key for key in KEYS if key not in facts]
    assert (facts["task"], facts["recipe"], facts["broker"]) == ("echo", "echo", kind)
    assert (facts["devices"], facts["rounds"], facts["params"], facts["refused"]) == (2, 3, 1000, 0)
    assert (facts["accuracy"], facts["accuracy_by_round"]) == (None, [])
    assert facts["updates"] == 6
    assert facts["bytes_up"] > 6 * 4000
    assert facts["bytes_down"] > 4 * 4000
    assert "round 2: published; 3 of 3 done" in text
    assert facts["model_digest"] in text

    folder = Path(facts["run_dir"])
    report = json.loads((folder / "report.json").read_text())
    assert {key: facts[key] for key in report if key not in ("seconds", "refused")} == {
        key: value for key, value in report.items() if key not in ("seconds", "refused")
    }
    assert {path.name for path in folder.iterdir()} >= {"model.blob", "spec.json", "report.json", "ledger.jsonl"}
    logs = {path.name for path in (tmp_path / "my demo" / "logs").iterdir()}
    assert logs == {"coordinator.log", "device-00.log", "device-01.log"}
    assert facts["exports"] == []  # echo trains nothing


def test_it_ends_with_the_file_that_every_board_took(tmp_path):
    facts, text = demo(tmp_path, "--broker", "iotcore", "--recipe", "fedavg", "--rounds", "1")
    took = check_ladder(facts["exports"])
    assert "what every board took" in text and took["device-03"]["variant"] in text
    check_golden(tmp_path / "my demo", took)


@pytest.mark.long
def test_over_mosquitto_every_board_answers_as_the_file_that_its_own_limits_chose(tmp_path, monkeypatch):
    """Trained, exported and rolled out at one go; one board measures on examples of its own, and limits latency."""
    started("mosquitto", tmp_path / "probe").stop()

    def tuned(device, broker, folder, data, *others, model, **own):
        more = {"held_out": 0.25} if device == "device-01" else {}
        limit = {"max_latency_ms": 1000} if more else {}
        return agent_config(device, broker, folder, data | more, *others, model={**model, **limit}, **own)

    monkeypatch.setattr("coordinator.front.demo.agent_config", tuned)
    options = DemoOptions(load_recipe("fedavg", ["rounds=1"]), "mosquitto", tmp_path / "demo", tmp_path / "facts.json")
    assert run_demo(options) == 0
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["broker"] == "mosquitto"
    took = check_ladder(facts["exports"])
    assert re.search(r"max_latency_ms 1000\b.* on \d+ examples of this device", took["device-01"]["why"])
    assert "by the manifest" in took["device-03"]["why"]
    check_golden(tmp_path / "demo", took)


def check_ladder(exports):
    """Every file is there once or more; returns what the four boards took, which is what their limits allow."""
    assert len(exports) >= 12  # every file, and one more line where two boards took the same
    for one in exports:
        assert {"bits", "profile", "path", "bytes", "accuracy", "latency_ms", "device"} <= set(one)
        assert Path(one["path"]).stat().st_size == one["bytes"]
        assert 0 <= one["accuracy"] <= 1 and one["latency_ms"] > 0
    took = {one["device"]: one for one in exports if one["device"]}
    assert list(took) == [f"device-{at:02d}" for at in range(4)]
    assert {one["outcome"] for one in took.values()} == {"healthy"}
    assert {took[f"device-0{at}"]["profile"] for at in (1, 3)} == {"int8"}
    best = max(exports, key=lambda one: (one["accuracy"], -one["bytes"]))
    assert took["device-00"]["variant"] == best["variant"]
    assert took["device-02"]["bytes"] <= 4810 // 4 + 3300
    return took


def check_golden(folder, took):
    """`bitfleet-agent infer` answers the golden inputs on every board as the file that it took does."""
    for device, one in took.items():
        check_answers(Board(folder, device, "", folder / "home"), folder / "exports", one["variant"])


def test_measurements_that_are_text_and_text_that_is_markup_are_shown(tmp_path):
    progress = Progress(tmp_path / "fleet.sqlite", echo_recipe(), "memory")
    database = new_run(tmp_path)
    metrics = {"loss_before": "[/bold]", "loss_after": 0.5, "seconds": "long", "peak_bytes": 3_000_000}
    with database.change():
        database.note("accepted", RUN, 0, "[/red]", bytes=1, metrics=metrics)
        database.note("phase", RUN, 0, phase="abandoned", reason="[/red]")
    assert progress.read() == ["round 0: abandoned, [/red]"]
    assert progress.devices["[/red]"] == {
        "state": "accepted",
        "round": "0",
        "bytes": "1",
        "loss_after": "0.5000",
        "peak": "3",
    }
    Console(file=io.StringIO()).print(progress.table())
    assert progress.read() == []
    with database.change():
        database.note("evaluated", RUN, 1, loss=1.0)
        database.note("phase", RUN, 1, phase="published")
    assert progress.read() == ["round 1: loss 1.0000; 1 of 10 done"]
    database.close()


def test_a_second_run_in_the_same_folder_is_shown_alone(tmp_path):
    database = new_run(tmp_path)

    def publish(run, numbers):
        with database.change():
            for number in numbers:
                database.note("accepted", run, number, f"dev-of-{run}", bytes=1)
                database.note("phase", run, number, phase="published")

    publish(RUN, range(3))
    progress = Progress(tmp_path / "fleet.sqlite", echo_recipe("rounds=3"), "memory")
    assert (progress.read(), progress.done, progress.devices) == ([], 0, {})
    for name in ("run-2", "run-3"):  # and should yet another be entered, it counts from its own start
        with database.change():
            query = "INSERT INTO runs (run, recipe, status, created, simulated) VALUES (?, '{}', 'open', 0, 1)"
            database.write(query, name)
        publish(name, range(2))
        assert progress.read() == ["round 0: published; 1 of 3 done", "round 1: published; 2 of 3 done"]
    assert set(progress.devices) == {"dev-of-run-2", "dev-of-run-3"}
    database.close()


def test_a_demo_that_cannot_work_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "coordinator", "demo", "--dir", str(tmp_path), "--set", "model=nonsense"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("bitfleet: E-CONFIG: unknown architecture 'nonsense'")


def test_the_configuration_that_the_demo_writes_is_one_that_the_agent_reads(tmp_path):
    folder = tmp_path / 'a "quoted" \\ folder düse'
    data = {"task": "digits", "split": "iid", "parts": 4, "part": 3, "seed": 1}
    path = tmp_path / "agent.toml"
    path.write_text(agent_config("device-03", "mqtt://127.0.0.1:1883", folder, data, "ab" * 32))
    config = load_config(path)
    assert (config.device, config.fleet, config.state_dir) == ("device-03", "demo", folder)
    assert (config.data.split, config.data.parts, config.data.part) == ("iid", 4, 3)
    assert (config.coordinator_key, config.train.nice) == ("ab" * 32, 0)
