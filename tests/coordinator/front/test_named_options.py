"""Errors about a folder name the option that the person has: `demo` and `simulate` have no --home and no --folder."""

from __future__ import annotations

import pytest

from coordinator import home as home_module
from coordinator.__main__ import main
from coordinator.home import open_home


def refused(capsys, command, folder, *words):
    assert main([command, "--recipe", "echo", "--dir", str(folder), *words]) == 1
    err = capsys.readouterr().err
    assert "--home" not in err and "--folder" not in err
    return err


def test_a_lock_that_cannot_be_opened(tmp_path, capsys):
    (tmp_path / "home" / "coordinator.lock").mkdir(parents=True)
    assert "coordinator.lock cannot be used: Is a directory; name a folder of your own with --dir" in refused(
        capsys, "simulate", tmp_path
    )


def test_a_folder_that_another_coordinator_uses(tmp_path, capsys):
    with open_home(tmp_path / "home"):
        assert "stop it, or name another --dir" in refused(capsys, "simulate", tmp_path)


@pytest.mark.parametrize("command", ["demo", "simulate"])
def test_a_key_that_may_not_be_made(tmp_path, capsys, monkeypatch, command):
    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(home_module, "make_key", closed)
    said = "round.key cannot be used: Permission denied; name a folder of your own with --dir"
    assert said in refused(capsys, command, tmp_path)


def test_files_of_a_broker_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "broker" / "rumqttd.toml").mkdir(parents=True)
    said = "rumqttd.toml cannot be used: Is a directory; name a folder of your own with --dir"
    assert said in refused(capsys, "demo", tmp_path, "--broker", "iotcore")
