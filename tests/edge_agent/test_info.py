from __future__ import annotations

import platform
from importlib.metadata import version

from edge_agent import info
from edge_agent.config import DataConfig
from edge_agent.info import device_info
from tests.edge_agent.boards import config
from wire.frame import VERSION, Kind, decode_frame


def facts(tmp_path):
    return decode_frame(device_info(config(tmp_path, data=DataConfig("digits"))), Kind.INFO).header


def test_says_what_the_device_is(tmp_path):
    said = facts(tmp_path)
    assert (said["protocol"], said["task"]) == (VERSION, "digits")
    assert (said["machine"], said["python"]) == (platform.machine(), platform.python_version())
    assert said["torch"] == version("torch")
    assert said["memory_bytes"] > 1_000_000
    assert said["cores"] >= 1


def test_what_is_not_known_is_absent(tmp_path, monkeypatch):
    monkeypatch.setattr(info, "_memory_bytes", lambda: None)
    monkeypatch.setattr(info, "_installed", lambda package: None)
    monkeypatch.setattr(info.os, "cpu_count", lambda: None)
    assert set(facts(tmp_path)) == {"protocol", "machine", "python", "task"}


def test_memory_is_what_the_kernel_says(tmp_path):
    assert info._memory_bytes(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:         903 kB\nMemFree: 1 kB\n")
    assert info._memory_bytes(tmp_path) == 903 * 1024
    (tmp_path / "proc/meminfo").write_text("nothing here\n")
    assert info._memory_bytes(tmp_path) is None


def test_a_package_that_is_not_there():
    assert info._installed("no-such-package-here") is None
