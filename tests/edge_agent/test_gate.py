"""The gate over trees of sensor files: what is there is judged, what is not there refuses nothing."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from edge_agent.config import DataConfig, Limits, TrainConfig
from edge_agent.gate import Readings, check_gate, free_memory_bytes, read_board
from tests.edge_agent.boards import IDLE, config, plan
from wire.errors import Declined
from wire.messages.plan import BlobRef, Envelope
from wire.messages.train import TrainSettings

UNKNOWN = Readings(None, None, None, None, None)


def tree(root, **files):
    """Writes sensor files; two underscores in a name stand for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_board_with_everything(tmp_path):
    root = tree(
        tmp_path,
        proc__meminfo="MemTotal:        4000 kB\nMemFree: 10 kB\nMemAvailable:    2000 kB\n",
        sys__class__thermal__thermal_zone0__temp="41500\n",
        sys__class__thermal__thermal_zone1__temp="62000\n",
        sys__class__power_supply__AC__type="Mains\n",
        sys__class__power_supply__AC__online="1\n",
        sys__class__power_supply__BAT0__type="Battery\n",
        sys__class__power_supply__BAT0__capacity="55\n",
        sys__class__power_supply__BAT0__status="Discharging\n",
    )
    board = read_board(tmp_path, root)
    assert (board.free_memory_bytes, board.temperature_c) == (2000 * 1024, 62.0)
    assert (board.battery_percent, board.on_mains) == (55.0, False)
    assert board.free_disk_bytes is not None
    assert board.free_disk_bytes > 0


@pytest.mark.parametrize(("status", "mains"), [("Charging", True), ("Full", True), ("Discharging", False)])
def test_mains_is_a_battery_that_is_not_drawn_on(tmp_path, status, mains):
    root = tree(tmp_path, sys__class__power_supply__BAT0__type="Battery", sys__class__power_supply__BAT0__status=status)
    assert read_board(tmp_path, root).on_mains is mains
    assert read_board(tmp_path, root).battery_percent is None


@pytest.mark.parametrize("status", ["", "Unknown\n"])
def test_a_battery_that_does_not_say_what_it_does_is_not_on_mains(tmp_path, status):
    root = tree(tmp_path, sys__class__power_supply__BAT0__type="Battery", sys__class__power_supply__BAT0__status=status)
    assert read_board(tmp_path, root).on_mains is None


def test_the_battery_of_a_mouse_is_not_the_board_s(tmp_path):
    root = tree(
        tmp_path,
        sys__class__power_supply__A_mouse__type="Battery",
        sys__class__power_supply__A_mouse__scope="Device",
        sys__class__power_supply__A_mouse__capacity="3",
        sys__class__power_supply__A_mouse__status="Discharging",
    )
    assert read_board(tmp_path, root).on_mains is None
    own = tree(root, sys__class__power_supply__BAT0__type="Battery", sys__class__power_supply__BAT0__capacity="88")
    assert read_board(tmp_path, own).battery_percent == 88


def test_the_memory_of_a_child_that_lingers_is_there_for_the_next_job(tmp_path):
    root = tree(
        tmp_path,
        proc__meminfo="MemAvailable: 1000 kB\n",
        proc__7__stat=f"7 (python -m (x)) S {os.getpid()} 7 7",
        proc__7__statm="5000 300 100 1 0 200 0",
        proc__8__stat="8 (other) S 1 8 8",
        proc__8__statm="5000 300 100 1 0 200 0",
    )
    assert read_board(tmp_path, root).free_memory_bytes == 1000 * 1024 + 200 * os.sysconf("SC_PAGE_SIZE")
    assert free_memory_bytes(root) == 1000 * 1024


def test_a_board_without_sensors_knows_nothing_and_is_not_refused(tmp_path):
    board = read_board(tmp_path / "no such folder", tmp_path)
    assert board == UNKNOWN
    check_gate(plan(), config(tmp_path), board)


def test_sensors_that_talk_nonsense_are_unknown(tmp_path):
    root = tree(
        tmp_path,
        proc__meminfo="MemTotal: 5 kB\n",
        sys__class__thermal__thermal_zone0__temp="hot\n",
        sys__class__power_supply__BAT0__type="Battery",
        sys__class__power_supply__BAT0__capacity="",
    )
    (root / "sys/class/thermal/thermal_zone1").mkdir()
    (root / "sys/class/thermal/thermal_zone1/temp").write_bytes(b"\xff\xfe")
    board = read_board(tmp_path, root)
    assert (board.free_memory_bytes, board.temperature_c, board.battery_percent) == (None, None, None)
    assert free_memory_bytes(tmp_path / "nowhere") is None


MB = 1_000_000
END = "e" * 64
REFUSED = {
    "another task": (plan(train=TrainSettings("digits")), {}, {}, "E-NO-DATA", "holds 'echo'"),
    "batch": (plan(train=TrainSettings("echo", batch=1025)), {}, {}, "E-ENVELOPE", "batch 1025, at most 1024"),
    "memory": (plan(), {"free_memory_bytes": 199 * MB}, {}, "E-MEMORY", "199 MB of memory free, 200 needed"),
    "memory that the plan needs": (
        plan(envelope=Envelope(memory_bytes=500 * MB)),
        {"free_memory_bytes": 499 * MB},
        {},
        "E-MEMORY",
        "500 needed",
    ),
    "disk": (plan(), {"free_disk_bytes": 63 * MB}, {}, "E-DISK-SPACE", "63 MB of disk free, 64 needed"),
    "disk that the plan needs": (
        plan(envelope=Envelope(disk_bytes=100 * MB)),
        {"free_disk_bytes": 163 * MB},
        {},
        "E-DISK-SPACE",
        "164 needed",
    ),
    "disk for the spec": (plan(spec_bytes=1 << 20), {"free_disk_bytes": 65 * MB}, {}, "E-DISK-SPACE", "65 needed"),
    "disk for the blobs of the shortest way": (
        plan(base=END, blobs=(BlobRef("a" * 64, 40 * MB, "", END), BlobRef("b" * 64, 90 * MB, "", END))),
        {"free_disk_bytes": 103 * MB},
        {},
        "E-DISK-SPACE",
        "104 needed",
    ),
    "heat": (plan(), {"temperature_c": 80.5}, {}, "E-HOT", "at most 80"),
    "battery low": (plan(), {"on_mains": False, "battery_percent": 29.0}, {}, "E-POWER", "battery at 29 %"),
    "no mains": (plan(), {"on_mains": False, "battery_percent": 99.0}, {"mains_only": True}, "E-POWER", "mains_only"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_refusal_has_its_code_and_its_figures(tmp_path, case):
    asked, readings, limits, code, words = REFUSED[case]
    with pytest.raises(Declined) as caught:
        check_gate(asked, config(tmp_path, limits=Limits(**limits)), replace(IDLE, **readings))
    assert caught.value.code == code
    assert words in caught.value.message


@pytest.mark.parametrize(
    "readings",
    [
        {"free_memory_bytes": 200 * MB},
        {"free_disk_bytes": 64 * MB + plan().spec_bytes},
        {"temperature_c": 80.0},
        {"on_mains": False, "battery_percent": 30.0},
        {"on_mains": True, "battery_percent": 1.0},
        {"on_mains": False, "battery_percent": None},
    ],
)
def test_at_the_limit_is_within_it(tmp_path, readings):
    check_gate(plan(), config(tmp_path), replace(IDLE, **readings))


def test_a_limit_that_was_moved_counts(tmp_path):
    hot = replace(IDLE, temperature_c=65.0)
    check_gate(plan(), config(tmp_path), hot)
    with pytest.raises(Declined, match="E-HOT"):
        check_gate(plan(), config(tmp_path, limits=Limits(max_temperature_c=60.0)), hot)
    with pytest.raises(Declined, match="at most 8 here"):
        check_gate(plan(), config(tmp_path, train=TrainConfig(max_batch=8)), IDLE)
    with pytest.raises(Declined, match="holds 'digits'"):
        check_gate(plan(), config(tmp_path, data=DataConfig("digits")), IDLE)
