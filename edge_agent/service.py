"""What the commands do: keep an agent running, look at one, take one out of its fleet."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import SystemRandom
from typing import Any

from edge_agent.agent import Agent
from edge_agent.config import AgentConfig
from edge_agent.gate import read_board
from edge_agent.outbox import entries
from edge_agent.standing import load_standing
from edge_agent.worker import ChildWorker
from wire.errors import StateError
from wire.links.link import parse_link
from wire.links.mqtt import MqttTransport
from wire.messages.reports import DeviceState, encode_state
from wire.topics import Topics
from wire.transport import Sent, Unsent, Up, Will

__all__ = ["leave", "run", "status"]

_LOCK = "agent.lock"
_FAREWELL_S = 10.0


def run(config: AgentConfig, for_s: float | None = None) -> int:
    """Keeps the agent going until it is told to end, or for so many seconds."""
    config.state_dir.mkdir(parents=True, exist_ok=True)
    with _only_one(config.state_dir):
        session = load_standing(config.state_dir).session + 1
        lost = encode_state(DeviceState("lost", session))
        transport = _transport(config, Will(Topics(config.fleet).device(config.device, "state"), lost))
        agent = Agent(config, transport, ChildWorker(config.train), time.monotonic, SystemRandom().random)
        ends_s = time.monotonic() + for_s if for_s is not None else None
        try:
            while ends_s is None or time.monotonic() < ends_s:
                agent.step(30.0 if ends_s is None else max(0.0, min(30.0, ends_s - time.monotonic())))
        finally:
            agent.stop()
    return 0


def status(config: AgentConfig, as_json: bool) -> int:
    """Prints what is known without the agent's help: whether it runs, what it owes, what the board says."""
    facts = _facts(config)
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            print(f"{name:14} {'unknown' if value is None else value}")
    return 0


def leave(config: AgentConfig, sure: bool) -> int:
    """Stops the agent, clears what the broker retains of it, and deletes its state; the data stay."""
    if not config.state_dir.exists():
        raise StateError(f"{config.state_dir} does not exist: this device has not joined")
    if not sure and not _confirmed(f"Delete {config.state_dir} and leave {config.fleet!r}? [y/N] "):
        return 1
    _end_running(config.state_dir)
    told = _say_farewell(config)
    shutil.rmtree(config.state_dir)
    print("left" if told else "left; the broker could not be told, so it still shows this device as lost")
    return 0


def _confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() == "y"
    except EOFError as exc:
        raise StateError("nobody is there to confirm", remedy="say --yes") from exc


def _facts(config: AgentConfig) -> dict[str, Any]:
    standing, board = load_standing(config.state_dir), read_board(config.state_dir)
    owed = entries(config.state_dir / "outbox")
    return {
        "device": config.device,
        "fleet": config.fleet,
        "broker": config.broker,
        "running_pid": _running(config.state_dir),
        "starts": standing.session,
        "rounds_done": dict(standing.done),
        "outbox": [{"run": entry.run, "round": entry.round, "bytes": entry.size} for entry in owed],
        "free_memory_bytes": board.free_memory_bytes,
        "free_disk_bytes": board.free_disk_bytes,
        "temperature_c": board.temperature_c,
        "battery_percent": board.battery_percent,
        "on_mains": board.on_mains,
    }


def _transport(config: AgentConfig, will: Will | None) -> MqttTransport:
    link = config.link
    files = {name: getattr(link, name) for name in ("password_file", "ca_file", "cert_file", "key_file")}
    return MqttTransport(
        parse_link(config.broker, username=link.username, **files),
        client_id=config.device,
        will=will,
        keepalive_s=link.keepalive_s,
        chunk_bytes=link.chunk_kib * 1024,
    )


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    with (folder / _LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise StateError(
                f"another agent (pid {_running(folder)}) uses {folder}", remedy="stop it, or set another state_dir"
            ) from exc
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _running(folder: Path) -> int | None:
    try:
        with (folder / _LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except FileNotFoundError:
        return None
    return None


def _end_running(folder: Path) -> None:
    pid = _running(folder)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    ends_s = time.monotonic() + _FAREWELL_S
    while _running(folder) is not None:
        if time.monotonic() > ends_s:
            raise StateError(f"agent {pid} did not end within {_FAREWELL_S:.0f} s", remedy=f"kill it: kill -9 {pid}")
        time.sleep(0.1)


def _say_farewell(config: AgentConfig) -> bool:
    transport = _transport(config, None)
    topics, waiting = Topics(config.fleet), set[int]()
    ends_s = time.monotonic() + _FAREWELL_S
    asked = False
    while time.monotonic() < ends_s and (waiting or not asked):
        event = transport.receive(0.5)
        if isinstance(event, Up):
            asked = True
            waiting = {
                transport.publish(topics.device(config.device, leaf), b"", retain=True) for leaf in ("state", "info")
            }
        elif isinstance(event, Sent):
            waiting.discard(event.token)
        elif isinstance(event, Unsent):
            break
    transport.close()
    return asked and not waiting
