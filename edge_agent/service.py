"""What the commands do: keep an agent running, look at one, take one out of its fleet."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from random import SystemRandom
from typing import Any

from edge_agent.agent import Agent
from edge_agent.config import AgentConfig
from edge_agent.gate import read_board, unwritable
from edge_agent.kept.memory import MEMORY
from edge_agent.kept.outbox import listed
from edge_agent.kept.standing import load_standing, read_standing
from edge_agent.meters.found import find_meter
from edge_agent.worker import ChildWorker
from wire.errors import StateError
from wire.links.link import parse_link
from wire.links.mqtt import MqttTransport
from wire.messages.reports import DeviceState, encode_state
from wire.topics import Topics
from wire.transport import Sent, Unsent, Up, Will

__all__ = ["leave", "run", "running", "status"]

_LOCK = "agent.lock"
_FAREWELL_S = 10.0
_GLANCES = 10
_GLANCE_S = 0.1
_OURS = {  # what an agent writes, by the folder that it writes it to
    "store": re.compile(r"[0-9a-f]{64}(\.[a-z]+)?|\..*\.tmp"),
    "outbox": re.compile(r".*\.(update|damaged)|\..*\.tmp"),
    MEMORY: re.compile(r".*\.(memory|damaged)|\..*\.tmp"),
    "models/a": re.compile(r"model\.onnx|facts\.json|healthy|\..*\.tmp"),
    "models/b": re.compile(r"model\.onnx|facts\.json|healthy|\..*\.tmp"),
    "models/store": re.compile(r"[0-9a-f]{64}(\.[a-z]+)?|\..*\.tmp"),
    "models": re.compile(
        r"(pointer|floors|outcome|findings|rolled-back)\.json|failures|models\.lock|bench\.(wish|json)|\..*\.tmp"
    ),
    "": re.compile(r"standing\.(json|damaged)|\.standing\..*\.tmp"),
}


def run(config: AgentConfig, for_s: float | None = None) -> int:
    """Keeps the agent going until it is told to end, or for so many seconds."""
    try:
        config.state_dir.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise unwritable(config.state_dir, exc) from exc
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
            absent = "none: the agent does not run" if name == "running_pid" else "unknown"
            print(f"{name:14} {absent if value is None else value}")
    return 0


def leave(config: AgentConfig, sure: bool) -> int:
    """Stops the agent, clears what the broker retains of it, and deletes what it wrote; every other file stays."""
    if not config.state_dir.exists():
        raise StateError(f"{config.state_dir} does not exist: this device has not joined")
    question = f"Delete the agent's files in {config.state_dir} and leave {config.fleet!r}? [y/N] "
    if not sure and not _confirmed(question):
        return 1
    _end_running(config.state_dir)
    with _only_one(config.state_dir):
        told = _say_farewell(config)
        try:
            _delete_own(config.state_dir)
        except OSError as exc:
            raise unwritable(config.state_dir, exc) from exc
    print("left" if told else "left; the broker could not be told, so it still shows this device as lost")
    if config.state_dir.exists():
        kept = ", ".join(sorted(path.name for path in config.state_dir.iterdir()))
        print(f"{config.state_dir} stays, with what the agent did not write: {kept or 'nothing'}")
    return 0


def _delete_own(folder: Path) -> None:
    """Deletes what an agent wrote and the folders that it leaves empty: the owner's examples may lie among them.

    The lock goes last, since no other agent starts while it is kept.
    """
    for name, ours in _OURS.items():
        place = folder / name
        for path in list(place.iterdir()) if place.is_dir() else []:
            if ours.fullmatch(path.name) and not path.is_dir():
                path.unlink()
        if name:
            _remove_if_empty(place)
    (folder / _LOCK).unlink()
    _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() == "y"
    except EOFError as exc:
        raise StateError("nobody is there to confirm", remedy="say --yes") from exc


def _facts(config: AgentConfig) -> dict[str, Any]:
    board, meter = read_board(config.state_dir), find_meter()
    try:
        standing = read_standing(config.state_dir)
    except StateError:
        standing = None  # the rest may tell why
    owed = listed(config.state_dir / "outbox")
    return {
        "device": config.device,
        "fleet": config.fleet,
        "broker": config.broker,
        "running_pid": running(config.state_dir),
        "starts": standing.session if standing else None,
        "rounds_done": dict(standing.done) if standing else None,
        "outbox": [{"run": entry.run, "round": entry.round, "bytes": entry.size} for entry in owed],
        "free_memory_bytes": board.free_memory_bytes,
        "free_disk_bytes": board.free_disk_bytes,
        "temperature_c": board.temperature_c,
        "battery_percent": board.battery_percent,
        "on_mains": board.on_mains,
        "power_meter": meter.source if meter else None,
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
    """Keeps the lock of a state folder; StateError if another agent keeps it, or if it cannot be written."""
    try:
        file = _lock(folder / _LOCK)
    except OSError as exc:
        raise unwritable(folder / _LOCK, exc) from exc
    if file is None:
        raise StateError(
            f"another agent (pid {running(folder)}) uses {folder}", remedy="stop it, or set another state_dir"
        )
    with file:
        yield


def _lock(path: Path) -> FileIO | None:
    """Returns the locked file, or None if somebody keeps it: `status` has it only for a moment, so ask again."""
    for _ in range(_GLANCES):
        file = _lock_now(path)
        if file is not None:
            return file
        time.sleep(_GLANCE_S)
    return None


def _lock_now(path: Path) -> FileIO | None:
    """Returns the file, locked and with our number in it; None if another has it, or `leave` has just deleted it."""
    file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            number = str(os.getpid()).encode()
            file.write(number)  # over the old one, which needs no room on a full disk
            file.truncate(len(number))
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError:
        file.close()
        raise
    file.close()
    return None


def running(folder: Path) -> int | None:
    """Returns the process that keeps the lock, or None; writes nothing."""
    try:
        with (folder / _LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                number = file.read()
                return int(number) if number.isdecimal() else None
    except FileNotFoundError:
        return None
    except PermissionError as exc:
        raise StateError(f"{folder} is not yours to look at", remedy="be the user that the agent runs as") from exc
    return None


def _end_running(folder: Path) -> None:
    pid = running(folder)
    if pid is None:
        return
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return  # it ended by itself
    except PermissionError as exc:
        raise StateError(f"agent {pid} is not yours to end", remedy="be the user that it runs as") from exc
    ends_s = time.monotonic() + _FAREWELL_S
    while running(folder) is not None:
        if time.monotonic() > ends_s:
            raise StateError(f"agent {pid} did not end within {_FAREWELL_S:.0f} s", remedy=f"kill it: kill -9 {pid}")
        time.sleep(_GLANCE_S)


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
                transport.publish(topics.device(config.device, leaf), b"", retain=True)
                for leaf in ("state", "info", "model")
            }
        elif isinstance(event, Sent):
            waiting.discard(event.token)
        elif isinstance(event, Unsent):
            break
    transport.close()
    return asked and not waiting
