"""The commands of the agent as a person types them, over a real broker."""

from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from edge_agent import service
from edge_agent.__main__ import main
from edge_agent.kept.outbox import entry_path
from tests.waiting import WAIT_S, settled
from wire.messages.blob import digest_bytes
from wire.messages.reports import decode_state
from wire.topics import Topics
from wire.transport import Message

ROOT = Path(__file__).parents[2]
TOPICS = Topics("test")
DEVICE = "dev-1"


@pytest.fixture(autouse=True)
def _own_sigterm():
    """`run` in this very process takes SIGTERM over; the test runner gets it back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def agent(tmp_path):
    """Returns a function that writes a configuration and starts `bitfleet-agent run` with it."""
    running = []

    def start(url, *words):
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_agent", "run", "--config", str(written(tmp_path, url)), *words],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def written(folder, url):
    path = folder / "agent.toml"
    state = json.dumps(str(folder / "state"))
    path.write_text(
        f'device = "{DEVICE}"\nfleet = "test"\nbroker = "{url}"\nstate_dir = {state}\n[data]\ntask = "echo"\n'
    )
    return path


def said(transport):
    """Returns the state of the device as the broker keeps it now, or None."""
    topic = TOPICS.device(DEVICE, "state")
    transport.subscribe(topic)
    kept = [m for m in settled(transport) if m.topic == topic and m.payload]
    transport.unsubscribe(topic)
    return decode_state(kept[-1].payload).state if kept else None


def wait_until(what, wanted):
    ends_s = monotonic() + WAIT_S
    while monotonic() < ends_s:
        found = what()
        if found == wanted:
            return
        sleep(0.05)
    raise AssertionError(f"{found!r}, not {wanted!r}, after {WAIT_S} s")


def status(folder, url, capsys):
    capsys.readouterr()
    assert main(["status", "--json", "--config", str(written(folder, url))]) == 0
    return json.loads(capsys.readouterr().out)


def test_runs_says_so_and_ends_when_told(broker, client, agent, tmp_path, capsys):
    watcher = client(broker, "watcher")
    process = agent(broker.url)
    wait_until(lambda: said(watcher), "ready")
    facts = status(tmp_path, broker.url, capsys)
    assert (facts["running_pid"], facts["starts"], facts["outbox"]) == (process.pid, 1, [])
    assert (facts["device"], facts["fleet"], facts["broker"]) == (DEVICE, "test", broker.url)
    process.terminate()
    assert process.wait(WAIT_S) == 0
    wait_until(lambda: said(watcher), "disconnected")
    assert status(tmp_path, broker.url, capsys)["running_pid"] is None


def test_a_killed_agent_is_lost_and_its_next_session_counts_on(broker, client, agent):
    watcher = client(broker, "watcher")
    process = agent(broker.url)
    wait_until(lambda: said(watcher), "ready")
    process.kill()
    wait_until(lambda: said(watcher), "lost")
    agent(broker.url)
    wait_until(lambda: said(watcher), "ready")
    topic = TOPICS.device(DEVICE, "state")
    watcher.subscribe(topic)
    (kept,) = [m for m in settled(watcher) if isinstance(m, Message) and m.topic == topic]
    assert decode_state(kept.payload).session == 2


def test_a_second_agent_on_the_same_state_is_turned_away(broker, client, agent):
    watcher = client(broker, "watcher")
    first = agent(broker.url)
    wait_until(lambda: said(watcher), "ready")
    second = agent(broker.url)
    assert second.wait(WAIT_S) == 1
    assert f"E-STATE: another agent (pid {first.pid}) uses" in second.stderr.read()
    assert first.poll() is None


def test_runs_for_so_many_seconds(broker, agent):
    assert agent(broker.url, "--for-s", "0.2").wait(WAIT_S) == 0


def test_leave_ends_the_agent_clears_the_broker_and_the_state(broker, client, agent, tmp_path, capsys):
    watcher = client(broker, "watcher")
    process = agent(broker.url)
    wait_until(lambda: said(watcher), "ready")
    (tmp_path / "readings").mkdir()
    assert main(["leave", "--yes", "--config", str(written(tmp_path, broker.url))]) == 0
    assert capsys.readouterr().out == "left\n"
    assert process.wait(WAIT_S) == 0
    assert not (tmp_path / "state").exists()
    assert (tmp_path / "readings").exists()
    watcher.subscribe(TOPICS.device("+", "+"))
    assert [m for m in settled(watcher) if m.topic.startswith(TOPICS.root) and m.payload] == []


def test_leave_says_when_the_broker_cannot_be_told(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("edge_agent.service._FAREWELL_S", 0.3)
    (tmp_path / "state").mkdir()
    assert main(["leave", "--yes", "--config", str(written(tmp_path, "mqtt://127.0.0.1:1"))]) == 0
    assert "could not be told" in capsys.readouterr().out
    assert not (tmp_path / "state").exists()


def test_leave_says_when_the_broker_refuses_to_be_told(mosquitto, tmp_path, capsys):
    (tmp_path / "acl").write_text("topic read #\n")
    broker = mosquitto(acl_file=str(tmp_path / "acl"))
    (tmp_path / "state").mkdir()
    assert main(["leave", "--yes", "--config", str(written(tmp_path, broker.url))]) == 0
    assert "could not be told" in capsys.readouterr().out


def test_leave_deletes_what_the_agent_wrote_and_nothing_else(tmp_path, capsys, monkeypatch):
    state = tmp_path / "state"
    digest = "0" * 64
    own = [f"store/{digest}", f"store/{digest}.model", f"store/{digest}.part", f"store/.{digest}.model.7.tmp"]
    own += [f"outbox/run-1.0.{digest}.update", "outbox/x.damaged", "outbox/.x.update.7.tmp"]
    own += ["models/a/model.onnx", "models/a/facts.json", "models/b/healthy", "models/b/.facts.json.7.tmp"]
    own += [f"models/{name}.json" for name in ("pointer", "floors", "outcome", "findings", "rolled-back")]
    own += ["models/bench.wish", "models/bench.json"]
    own += [f"models/store/{digest}", f"models/store/{digest}.part", "models/failures", "models/models.lock"]
    own += ["standing.json", "standing.damaged", ".standing.json.7.tmp", "agent.lock"]
    others = ["readings/mine.npz", "store/shop.txt", "thesis.tex"]
    for name in own + others:
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text("1")
    locked = []

    def farewell(config):
        locked.append(main(["run", "--for-s", "0", "--config", str(tmp_path / "agent.toml")]))
        return True

    monkeypatch.setattr(service, "_say_farewell", farewell)
    monkeypatch.setattr(service.time, "sleep", lambda seconds: None)
    assert main(["leave", "--yes", "--config", str(written(tmp_path, "mqtt://127.0.0.1:1"))]) == 0
    assert sorted(str(path.relative_to(state)) for path in state.rglob("*") if path.is_file()) == others
    said = capsys.readouterr()
    assert said.out == f"left\n{state} stays, with what the agent did not write: readings, store, thesis.tex\n"
    assert (locked, "another agent" in said.err) == ([1], True)


@pytest.mark.parametrize("answer", ["\n", "n\n", "yes please\n"])
def test_leave_asks_first(tmp_path, monkeypatch, answer):
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    assert main(["leave", "--config", str(written(tmp_path, "mqtt://127.0.0.1:1"))]) == 1
    assert (tmp_path / "state").exists()


def test_leave_with_nobody_to_ask(tmp_path, monkeypatch, capsys):
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert main(["leave", "--config", str(written(tmp_path, "mqtt://127.0.0.1:1"))]) == 1
    assert "say --yes" in capsys.readouterr().err
    assert (tmp_path / "state").exists()


def test_leave_without_having_joined(tmp_path, capsys):
    assert main(["leave", "--yes", "--config", str(written(tmp_path, "mqtt://127.0.0.1:1"))]) == 1
    assert "this device has not joined" in capsys.readouterr().err


def test_status_shows_what_is_owed_without_a_running_agent(tmp_path, capsys):
    outbox = tmp_path / "state" / "outbox"
    outbox.mkdir(parents=True)
    entry_path(outbox, "run-1", 4, digest_bytes(b"update")).write_bytes(b"update")
    facts = status(tmp_path, "mqtt://127.0.0.1:1", capsys)
    assert facts["outbox"] == [{"run": "run-1", "round": 4, "bytes": 6}]
    assert (facts["running_pid"], facts["starts"], facts["rounds_done"]) == (None, 0, {})
    assert main(["status", "--config", str(tmp_path / "agent.toml")]) == 0
    printed = capsys.readouterr().out
    assert "running_pid    none: the agent does not run" in printed
    assert "free_disk_bytes" in printed


def test_status_changes_nothing_even_where_things_are_damaged(tmp_path, capsys):
    outbox = tmp_path / "state" / "outbox"
    outbox.mkdir(parents=True)
    entry_path(outbox, "run-1", 4, "0" * 64).write_bytes(b"torn")
    (tmp_path / "state" / "standing.json").write_bytes(b"\0\0")
    (tmp_path / "state" / "agent.lock").write_bytes(b"\0\0")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "state").rglob("*")}
    facts = status(tmp_path, "mqtt://127.0.0.1:1", capsys)
    assert (facts["starts"], facts["rounds_done"], facts["running_pid"]) == (None, None, None)
    assert facts["outbox"] == [{"run": "run-1", "round": 4, "bytes": 4}]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "state").rglob("*")} == before


def test_an_agent_starts_while_status_looks_at_its_lock(tmp_path, monkeypatch):
    with (tmp_path / "agent.lock").open("w+") as glance:
        fcntl.flock(glance, fcntl.LOCK_SH)
        monkeypatch.setattr(service.time, "sleep", lambda seconds: glance.close())
        with service._only_one(tmp_path):
            assert service.running(tmp_path) == os.getpid()
    assert service.running(tmp_path) is None


def test_a_lock_that_was_deleted_keeps_nobody_out_and_nobody_in(tmp_path, monkeypatch):
    lock, flock = tmp_path / "agent.lock", fcntl.flock

    def deleted_meanwhile(file, operation):
        flock(file, operation)
        lock.unlink()
        monkeypatch.setattr(fcntl, "flock", flock)

    monkeypatch.setattr(fcntl, "flock", deleted_meanwhile)
    monkeypatch.setattr(service.time, "sleep", lambda seconds: None)
    with service._only_one(tmp_path):
        assert service.running(tmp_path) == os.getpid()


def test_a_lock_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "agent.lock").symlink_to("/dev/full")
    assert main(["run", "--for-s", "0", "--config", str(written(tmp_path, "mqtt://127.0.0.1:1"))]) == 1
    assert "bitfleet-agent: E-DISK-SPACE: " in capsys.readouterr().err
    (tmp_path / "state" / "agent.lock").unlink()
    (tmp_path / "state").rmdir()
    (tmp_path / "state").write_text("no folder")
    assert main(["run", "--for-s", "0", "--config", str(tmp_path / "agent.toml")]) == 1
    assert "bitfleet-agent: E-DISK: " in capsys.readouterr().err


def test_a_configuration_that_is_wrong_is_one_line_and_status_1(tmp_path, capsys):
    (tmp_path / "agent.toml").write_text("devise = 1\n")
    assert main(["run", "--config", str(tmp_path / "agent.toml")]) == 1
    assert capsys.readouterr().err.startswith("bitfleet-agent: E-CONFIG: ")
    assert main(["status", "--config", str(tmp_path / "none.toml")]) == 1


def test_a_broker_that_is_none_is_named_at_once(tmp_path, capsys):
    assert main(["run", "--config", str(written(tmp_path, "http://somewhere"))]) == 1
    assert "mqtt://" in capsys.readouterr().err
