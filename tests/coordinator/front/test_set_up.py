"""What docs/operating.md has a person type to set up a broker and a board, typed here: the machine is a folder."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from getpass import getuser
from pathlib import Path

import pytest

from coordinator.__main__ import main
from coordinator.broker import _free_port
from tests.coordinator.test_operating import ROOT, SECTIONS
from tests.waiting import wait_for
from wire.links.link import parse_link
from wire.links.mqtt import MqttTransport
from wire.topics import acl_file
from wire.transport import Up


def lines_of(section: str, at: int) -> str:
    """Returns the command lines of a block of a section."""
    return re.findall(r"```sh\n(.*?)```", SECTIONS[section], re.DOTALL)[at]


def typed(lines: str, home: Path, moved: dict[str, str]) -> None:
    """Runs command lines in a folder as a person would, with some texts replaced; none that changes the machine.

    The folder is not that of root, whose files are in one of their own.
    """
    (home / "of-root").mkdir()
    for old, new in moved.items():
        lines = lines.replace(old, new)
    for old, new in {"/etc/": f"{home}/etc/", "/root/": f"{home}/of-root/", "~/": f"{home}/of-root/"}.items():
        lines = lines.replace(old, new)
    kept = [
        line
        for line in lines.splitlines()
        if not re.match(r"(apt-get|chown|useradd|systemctl|\S*python3|\S*pip) ", line)
    ]
    done = subprocess.run(
        ["bash", "-euc", "\n".join(kept)], cwd=home, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_the_acl_that_a_person_prints(capsys):
    commands = lines_of("A broker of your own", 0).splitlines()
    assert main(shlex.split(commands[0].removesuffix(" > acl"))[1:]) == 0
    assert capsys.readouterr().out == (ROOT / "deploy/mosquitto/acl").read_text()
    assert main(["acl", "--fleet", "garden", "--coordinator", "gardener"]) == 0
    printed = capsys.readouterr().out
    assert printed == acl_file("garden", "gardener")
    assert main(["acl", "--coordinator", "dashboard"]) == 1
    assert "E-CONFIG: coordinator = 'dashboard' is the dashboard's name" in capsys.readouterr().err
    assert main(["acl", "--fleet", "no fleet"]) == 1
    assert "fleet = 'no fleet'" in capsys.readouterr().err
    assert all((ROOT / name).exists() for name in shlex.split(commands[1])[1:-1] if name != "acl")
    assert "root@" not in commands[1]  # Debian and Ubuntu let root in with a key alone, and mostly not at all


def test_a_broker_as_the_document_sets_it_up(tmp_path):
    """Its own authority, the files where they go, and the configuration as it ships but for its paths and its port."""
    mosquitto = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    if not (mosquitto and shutil.which("mosquitto_passwd") and shutil.which("openssl")):
        pytest.skip("no mosquitto or no openssl here")
    (tmp_path / "etc/mosquitto").mkdir(parents=True)
    for name in ("acl", "mosquitto.conf"):
        shutil.copy(ROOT / "deploy/mosquitto" / name, tmp_path / name)
    asked = {
        "passwords coordinator ": "-b passwords coordinator secret ",
        "passwords greenhouse-1 ": "-b passwords greenhouse-1 secret ",
        "DNS:broker.example": "IP:127.0.0.1",
        "-o mosquitto -g mosquitto ": "",
    }
    typed(lines_of("A broker of your own", 1), tmp_path, asked)
    folder, conf = tmp_path / "etc/mosquitto/bitfleet", tmp_path / "etc/mosquitto/mosquitto.conf"
    assert {path.name for path in folder.iterdir()} == {"ca.crt", "broker.crt", "broker.key", "passwords", "acl"}
    port = _free_port()
    text = conf.read_text().replace("/etc/mosquitto", f"{conf.parent}").replace("/var/lib/mosquitto", f"{tmp_path}")
    conf.write_text(text.replace("listener 8883", f"listener {port} 127.0.0.1") + f"user {getuser()}\n")
    (tmp_path / "password").write_text("secret\n")
    link = parse_link(
        f"mqtts://127.0.0.1:{port}",
        username="greenhouse-1", password_file=tmp_path / "password", ca_file=folder / "ca.crt",
    )  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        broker = subprocess.Popen([mosquitto, "-c", str(conf)], stdout=log, stderr=log)
    try:
        transport = MqttTransport(link, "coordinator.home")  # it gets its own name all the same
        try:
            wait_for(transport, Up)
        finally:
            transport.close()
    finally:
        broker.terminate()
        broker.wait(10)
    said = (tmp_path / "log").read_text()
    assert re.findall(r"listen socket on port (\d+)", said) == [str(port)], said
    assert re.search(r"New client connected from \S+ as greenhouse-1 ", said), said


def test_a_board_as_the_document_sets_it_up(tmp_path):
    """Every file is where the unit and the example of a configuration look for it, and nobody else reads secrets."""
    assert all((ROOT / name).exists() for name in re.findall(r"(?:scripts|deploy)/\S+", lines_of("Set up", 0)))
    (example,) = re.findall(r"```toml\n(.*?)```", SECTIONS["The board's configuration"], re.DOTALL)
    unit = (ROOT / "deploy/bitfleet-agent.service").read_text()
    for name, text in {"agent.toml": example, "password": "x", "ca.crt": "x", "bitfleet-agent.service": unit}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    lines = lines_of("Set up", 1)
    typed(lines, tmp_path, {"-o root -g bitfleet ": ""})
    placed = {f"/{path.relative_to(tmp_path)}" for path in (tmp_path / "etc").rglob("*") if path.is_file()}
    assert placed == {
        *re.findall(r'"(/etc/\S+)"', example),
        "/etc/bitfleet/agent.toml",
        "/etc/systemd/system/bitfleet-agent.service",
    }
    assert (tmp_path / "etc/bitfleet/password").stat().st_mode & 0o777 == 0o640
    (program,) = re.findall(r"ExecStart=(\S+) ", unit)
    assert f"{Path(program).parent}/pip install" in lines and f"-m venv {Path(program).parents[1]}" in lines
    (user,) = re.findall(r"^User=(.+)$", unit, re.M)
    assert re.search(rf"^useradd .* {user}$", lines, re.M) and "systemctl enable --now bitfleet-agent " in lines
