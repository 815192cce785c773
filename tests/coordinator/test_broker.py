from __future__ import annotations

import errno
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep

import pytest

from coordinator import broker as broker_module
from coordinator.broker import start_broker
from coordinator.front.demo import start_python
from coordinator.front.ladder import Ladder
from coordinator.home import open_home
from coordinator.service import Serving, open_transport
from tests.waiting import wait_for
from wire.errors import ConfigError, StateError, TransportError
from wire.links.link import parse_link
from wire.links.mqtt import MqttTransport
from wire.transport import Message, Up


def answers(broker):
    transport = MqttTransport(parse_link(broker.url), "asker")
    try:
        return isinstance(transport.receive(10), Up)
    finally:
        transport.close()


def test_starts_stops_and_comes_back_on_its_port(broker):
    first, port = broker.pid, broker.port
    assert broker.alive()
    assert answers(broker)
    broker.stop()
    assert not broker.alive()
    broker.restart()
    assert (broker.port, broker.alive(), answers(broker)) == (port, True, True)
    assert broker.pid != first
    broker.kill()
    assert not broker.alive()
    broker.restart()
    assert answers(broker)


def test_coordinators_of_two_fleets_do_not_evict_each_other(tmp_path, broker):
    made = []
    try:
        for fleet in ("home", "away"):
            with open_home(tmp_path / fleet) as home:
                made.append(open_transport(Serving(tmp_path / fleet, fleet, parse_link(broker.url)), home))
            assert isinstance(made[-1].receive(10), Up)
        first, second = made
        first.subscribe("seen")
        second.publish("seen", b"by both", retain=True)
        seen = []
        assert wait_for(first, Message, seen).payload == b"by both"
        assert seen == []
    finally:
        for transport in made:
            transport.close()


def test_listens_on_the_loopback_only(broker):
    wanted = f"0100007F:{broker.port:04X}"
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(f":{broker.port:04X}")]
    assert listening == [wanted]


def test_ports_stay_clear_of_outgoing_ones(broker):
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert broker.port < min(lowest, 32768)


def test_port_in_use_is_an_error_that_names_it(tmp_path, broker):
    with pytest.raises(
        TransportError, match=rf"port {broker.port} is in use; .*, use that one: --broker {broker.url}$"
    ):
        start_broker(broker.kind, tmp_path / "second", broker.port)


@pytest.mark.parametrize("port", [-1, 65536, 70000])
def test_a_port_that_is_none_is_refused(tmp_path, port):
    with pytest.raises(ConfigError, match=rf"--port = {port}; choose 0 to 65535"):
        start_broker("auto", tmp_path, port)


def test_a_port_that_is_root_s_is_not_said_to_be_in_use(tmp_path, monkeypatch):
    monkeypatch.setattr(broker_module, "_refusal", lambda port: errno.EACCES)  # the tests may be root
    with pytest.raises(TransportError, match="port 80 cannot be used: Permission denied; choose one from 1024 on"):
        start_broker("auto", tmp_path, 80)


def test_a_store_is_not_said_to_be_damaged_because_the_port_is_in_use(tmp_path, mosquitto):
    broker = mosquitto()
    (tmp_path / "second").mkdir()
    store = tmp_path / "second" / "mosquitto.db"
    store.write_bytes(b"store")
    with pytest.raises(TransportError, match="is in use"):
        start_broker("mosquitto", tmp_path / "second", broker.port)
    assert store.read_bytes() == b"store"


def test_files_that_cannot_be_written_are_named_with_the_option(tmp_path):
    (tmp_path / "rumqttd.toml").mkdir()
    with pytest.raises(StateError, match=r"rumqttd\.toml cannot be used: Is a directory; .* with --dir, or"):
        start_broker("iotcore", tmp_path, option="--dir")


def test_a_process_that_cannot_be_started_is_not_said_to_be_the_folder_s_fault(tmp_path, monkeypatch):
    def full(*_, **__):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(broker_module.subprocess, "Popen", full)
    with pytest.raises(StateError, match="iotcore cannot be started: Resource temporarily unavailable; see that there"):
        start_broker("iotcore", tmp_path)


def test_broker_ends_with_its_parent(tmp_path, broker):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom coordinator.broker import start_broker\n"
        "print(start_broker(sys.argv[1], Path(sys.argv[2])).pid, flush=True)\ntime.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, broker.kind, str(tmp_path / "child")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as parent:
        pid = int(parent.stdout.readline())
        assert running(pid)
        parent.send_signal(signal.SIGKILL)
    ends_s = monotonic() + 15
    while running(pid) and monotonic() < ends_s:
        sleep(0.02)
    assert not running(pid)


def running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_start_that_fails_quotes_the_log(mosquitto):
    with pytest.raises(TransportError, match="no_such_setting"):
        mosquitto(no_such_setting="1")


def test_damaged_store_is_moved_aside(mosquitto):
    broker = mosquitto()
    broker.stop()
    store = broker.folder / "mosquitto.db"
    store.write_bytes(b"\x00" * 1000)
    broker.restart()
    assert answers(broker)
    assert (broker.folder / "mosquitto.db.damaged").read_bytes() == b"\x00" * 1000


def test_unknown_kinds_and_settings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="choose auto, mosquitto or iotcore"):
        start_broker("rabbit", tmp_path)
    with pytest.raises(ConfigError, match="use mosquitto"):
        start_broker("iotcore", tmp_path, settings={"acl_file": "x"})


@pytest.mark.parametrize(("kind", "remedy"), [("mosquitto", "apt install mosquitto"), ("auto", "pip install iotcore")])
def test_missing_brokers_name_the_package(tmp_path, monkeypatch, kind, remedy):
    monkeypatch.setattr(broker_module, "_mosquitto", lambda: None)
    monkeypatch.setattr(broker_module, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=remedy):
        start_broker(kind, tmp_path)


def test_auto_falls_back_to_iotcore(tmp_path, monkeypatch):
    monkeypatch.setattr(broker_module, "_mosquitto", lambda: None)
    with start_broker("auto", tmp_path) as broker:
        assert broker.kind == "iotcore"


def test_auto_prefers_mosquitto(tmp_path, mosquitto):
    mosquitto()
    with start_broker("auto", tmp_path) as broker:
        assert broker.kind == "mosquitto"


@pytest.mark.usefixtures("own_files")
def test_a_broker_and_a_command_import_nothing_from_where_a_person_happens_to_be(tmp_path):
    with start_broker("iotcore", tmp_path / "broker") as broker:
        assert broker.kind == "iotcore"
    with start_python(tmp_path / "log", "coordinator", "--help") as process:
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
    ladder = Ladder(tmp_path, tmp_path, tmp_path, "demo", broker.url)
    ladder._call("--help")
    assert "usage: bitfleet" in (tmp_path / "--help.log").read_text()


def test_a_named_port_is_used(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with start_broker("iotcore", tmp_path, port) as broker:
        assert broker.url == f"mqtt://127.0.0.1:{port}"
        assert broker.log.parent.samefile(tmp_path)
