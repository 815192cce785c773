"""A broker of our own on the loopback, for one machine: mosquitto where it is installed, else rumqttd from `iotcore`.

It is a cache and a pipe: what must last is kept by its owner and published again after every reconnect.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from getpass import getuser
from importlib.util import find_spec
from pathlib import Path
from random import SystemRandom
from time import monotonic, sleep

from wire.errors import ConfigError, StateError, TransportError, said_by
from wire.pipe import python
from wire.settings import check_range, make_folder, usable

__all__ = ["PACKET_BYTES", "Broker", "start_broker"]

PACKET_BYTES = 1024 * 1024
"""The largest packet either broker takes."""

_START_WAIT_S = 15.0
_STOP_WAIT_S = 5.0
_ADMIN_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
# Below Linux's range of outgoing ports (32768 and up): a client that calls a dead port in that range can be given the
# very port it calls, is then connected to itself, and keeps the broker from coming back.
_PORTS = range(20000, 32000)

# The kernel ends the broker when the thread that started it ends; exec keeps that and the process id.
_TIED = """
import ctypes, os, signal, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != parent:
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""
_RUMQTTD = """
import logging, sys
logging.basicConfig(level=logging.WARNING)
logging.getLogger("rumqttd").setLevel(logging.CRITICAL)  # it reports every packet as an error
from iotcore import IotCoreBroker
IotCoreBroker(config_path=sys.argv[1]).run_forever()
"""


@dataclass
class Broker:
    """A broker process on 127.0.0.1: it keeps its port over restarts and ends with the thread that started it."""

    kind: str
    folder: Path
    port: int
    settings: Mapping[str, str] = field(default_factory=dict)
    option: str = "--folder"
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Returns the address for `wire.links.link.parse_link`."""
        return f"{'mqtts' if 'certfile' in self.settings else 'mqtt'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Returns the process id, None before the first start."""
        return self._process.pid if self._process else None

    @property
    def log(self) -> Path:
        """Returns the file with what the broker printed."""
        return self.folder / "broker.log"

    def alive(self) -> bool:
        """Tells whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends the process politely, or after five seconds by force."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends the process as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def restart(self) -> None:
        """Starts the broker (again) on the same port and returns when it answers."""
        self.stop()
        _check_port(self.port)
        try:
            self._launch()
        except TransportError:
            if not self._move_store_aside():
                raise
            self._launch()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self) -> None:
        command = _mosquitto_command(self) if self.kind == "mosquitto" else _iotcore_command(self)
        with usable(self.log, self.option):
            log = self.log.open("ab")
        tied = [sys.executable, "-I", "-S", "-c", _TIED, str(os.getpid()), *command]
        try:
            with log:
                self._process = subprocess.Popen(tied, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        except OSError as exc:
            remedy = "see that there is memory for another process"
            raise StateError(f"{self.kind} cannot be started: {said_by(exc)}", remedy=remedy) from exc
        self._await_answer()

    def _await_answer(self) -> None:
        ends_s = monotonic() + _START_WAIT_S
        while self.alive() and monotonic() < ends_s:
            if _answers(self.port, secured="certfile" in self.settings) and self.alive():
                return
            sleep(0.01)
        state = f"did not answer within {_START_WAIT_S:.0f} s" if self.alive() else "ended at once"
        self.kill()
        raise TransportError(f"{self.kind} on port {self.port} {state}: {_tail(self.log)}", remedy=f"see {self.log}")

    def _move_store_aside(self) -> bool:
        """Renames mosquitto's store, with which it does not start if it is damaged; returns whether there was one."""
        store = self.folder / "mosquitto.db"
        if self.kind != "mosquitto" or not store.exists():
            return False
        with usable(store, self.option):
            store.replace(self.folder / "mosquitto.db.damaged")
        return True


def start_broker(
    kind: str, folder: Path, port: int = 0, *, settings: Mapping[str, str] | None = None, option: str = "--folder"
) -> Broker:
    """Returns a broker that answers: `auto`, `mosquitto` or `iotcore`; port 0 takes a free one.

    `settings` are lines of mosquitto's configuration that replace or follow ours; with `certfile` the URL is mqtts.
    `option` is what a person named the folder with.
    """
    check_range("--port", port, 0, 65535)
    chosen = _choose(kind)
    if settings and chosen != "mosquitto":
        raise ConfigError(f"{chosen} takes no settings, and was given {sorted(settings)}", remedy="use mosquitto")
    make_folder(folder, option)
    broker = Broker(chosen, folder.resolve(), port or _free_port(), dict(settings or {}), option)
    broker.restart()
    return broker


def _choose(kind: str) -> str:
    if kind not in ("auto", "mosquitto", "iotcore"):
        raise ConfigError(f"broker {kind!r} is unknown", remedy="choose auto, mosquitto or iotcore")
    if kind != "iotcore" and _mosquitto():
        return "mosquitto"
    if kind != "mosquitto" and find_spec("iotcore"):
        return "iotcore"
    remedy = "apt install mosquitto" if kind == "mosquitto" else "pip install iotcore"
    raise ConfigError(f"broker {kind!r} is not installed here", remedy=remedy)


def _mosquitto() -> str | None:
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=os.pathsep.join(_ADMIN_FOLDERS))


def _mosquitto_command(broker: Broker) -> list[str]:
    binary = _mosquitto()
    if binary is None:
        raise ConfigError("mosquitto is no longer installed", remedy="apt install mosquitto")
    lines = {
        "user": getuser(),  # it would else leave root for a user that cannot write here
        "persistence": "true",
        "persistence_location": f"{broker.folder}/",
        "autosave_interval": "5",
        "max_packet_size": str(PACKET_BYTES),
        "max_inflight_messages": "64",
        "max_queued_messages": "20000",
        "memory_limit": str(1024 * PACKET_BYTES),
        "log_dest": "stderr",
        "log_timestamp_format": "%Y-%m-%dT%H:%M:%S",
        "listener": f"{broker.port} 127.0.0.1",
        "allow_anonymous": "true",
        **broker.settings,
    }
    config = _written(broker, "mosquitto.conf", "".join(f"{key} {value}\n" for key, value in lines.items()))
    return [binary, "-c", str(config)]


def _iotcore_command(broker: Broker) -> list[str]:
    # Its memory is a log for every filter in use: 32 segments of 1 MiB at most, and a reader that falls further behind
    # misses messages.
    config = _written(
        broker,
        "rumqttd.toml",
        f"""id = 0

[router]
id = 0
max_connections = 1010
max_outgoing_packet_count = 200
max_segment_size = {PACKET_BYTES}
max_segment_count = 32

[v5.1]
name = "v5-1"
listen = "127.0.0.1:{broker.port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 10000
max_payload_size = {PACKET_BYTES}
max_inflight_count = 100
dynamic_filters = true
""",
    )
    return python(_RUMQTTD, str(config))


def _written(broker: Broker, name: str, text: str) -> Path:
    with usable(broker.folder / name, broker.option):
        (broker.folder / name).write_text(text, encoding="utf-8")
    return broker.folder / name


def _check_port(port: int) -> None:
    """Raises TransportError unless a broker may listen on a port."""
    said = _refusal(port)
    if said == errno.EADDRINUSE:
        there = f"or, if a broker has it, use that one: --broker mqtt://127.0.0.1:{port}"
        raise TransportError(f"port {port} is in use", remedy=f"choose another, or 0 for a free one; {there}")
    if said:
        remedy = "choose one from 1024 on: those below are root's"
        raise TransportError(f"port {port} cannot be used: {os.strerror(said)}", remedy=remedy)


def _free_port() -> int:
    for port in SystemRandom().sample(_PORTS, 200):
        if not _refusal(port):
            return port
    raise TransportError(f"no free port in {_PORTS}", remedy="name one")


def _refusal(port: int) -> int:
    """Returns the number of the error with which the system refuses a port; 0 where it may be used."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            return exc.errno or errno.EADDRINUSE
        return 0


def _answers(port: int, *, secured: bool) -> bool:
    """Tells whether an MQTT 5 CONNECT gets a CONNACK; behind TLS, whether anybody listens."""
    name = b"bitfleet-probe"
    body = b"\x00\x04MQTT\x05\x02\x00\x0a\x00" + len(name).to_bytes(2, "big") + name
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as probe:
            if secured:
                return True
            probe.sendall(bytes((0x10, len(body))) + body)
            answer = probe.recv(64)
            probe.sendall(b"\xe0\x00")
            return answer[:1] == b"\x20"
    except OSError:
        return False


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as exc:
        return f"no log ({exc})"
    return " | ".join(lines[-5:]) or "the log is empty"
