"""Bad links, full disks and slow children, with real processes and real sockets: each device ends in a named state."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from coordinator.recipe import load_recipe
from tests.end_to_end.fleet import COORDINATOR, undisturbed_model
from tests.end_to_end.members import HeldWorker, drive, member, members, set_link
from tests.waiting import url_of

KINDS = ["mosquitto", "iotcore"]
PIECE_BYTES = 16 * 1024
UPDATE_BYTES = 160_000
POSITIONS = [1, 200, 1_000, 16_000, 16_900, 33_000, 50_001, 70_000, 99_999, 131_072, 140_000, 158_000, 160_000]
SLACK_BYTES = 6_000  # states, questions, and the packets and headers around the pieces


def recipe(*settings, goal=1, rounds=3, size=64):
    return load_recipe("echo", [f"devices.goal={goal}", f"rounds={rounds}", f'model="vector-{size}"', *settings])


def noted(fleet, event, **wanted):
    return [line for line in fleet.ledger() if line["event"] == event and wanted.items() <= line.items()]


def published(fleet):
    return {line["round"] for line in noted(fleet, "phase", phase="published")} if fleet.run else set()


def logged(fleet, name, pattern):
    return re.findall(pattern, fleet.tail(name, 100_000))


def model_of(fleet):
    return fleet.ledger()[-1]["model"]


@pytest.mark.parametrize("kind", KINDS)
def test_cut_upload_resumes_at_the_missing_piece(kind, tmp_path, relay):
    """The relay counts: what was through before the cut is not sent again, wherever the cut is."""
    wanted = recipe(size=UPDATE_BYTES // 4, rounds=len(POSITIONS))
    with ExitStack() as stack:
        fleet = stack.enter_context(members(kind, tmp_path, wanted))
        between, worker = relay(fleet.broker.port), HeldWorker(held=True)
        set_link(fleet, "dev-0", url_of(between.port))
        agent = stack.enter_context(member(fleet, "dev-0", worker, chunk_bytes=PIECE_BYTES))
        fleet.start(COORDINATOR)

        def until(so):
            drive(so, lambda: agent.step(0.02), why=fleet.tails)

        for number, position in enumerate(POSITIONS):
            until(lambda: agent.work and agent.work.training)
            before, links = between.up_bytes, len(between.connections)
            between.cut_up_after(position)
            worker.held = False
            until(lambda: agent.uploads)
            worker.held = True
            (upload,) = agent.uploads.values()
            until(lambda number=number: agent.standing.settled(fleet.run, number))
            assert len(between.connections) == links + 1, position
            assert upload.payload_bytes < PIECE_BYTES or position == 1, position
            sent = between.up_bytes - before
            assert upload.entry.size <= sent <= upload.entry.size + PIECE_BYTES + SLACK_BYTES, position
        until(lambda: fleet.over)
    assert model_of(fleet) == undisturbed_model(tmp_path / "undisturbed", wanted)
    assert not noted(fleet, "refused")


@pytest.mark.parametrize("late", ["refuse", "fold"])
def test_partition_of_one_device_does_not_hold_the_others_up(late, tmp_path, relay):
    times = ("devices.deadline_s=3", "devices.selection_timeout_s=30", "devices.quorum=0.5")
    wanted = recipe(*times, f'devices.late="{late}"', goal=2, rounds=3)
    with ExitStack() as stack:
        fleet = stack.enter_context(members("mosquitto", tmp_path, wanted))
        between, worker = relay(fleet.broker.port), HeldWorker(held=True)
        set_link(fleet, "dev-1", url_of(between.port))
        agent = stack.enter_context(member(fleet, "dev-1", worker))
        fleet.start(COORDINATOR)
        fleet.start("dev-0")

        def until(so):
            drive(so, lambda: agent.step(0.02), why=fleet.tails)

        until(lambda: agent.work and agent.work.training)
        between.refusing = True
        between.cut()
        worker.held = False
        until(lambda: agent.uploads)
        until(lambda: 0 in published(fleet))
        (upload,) = agent.uploads.values()
        between.refusing = False
        until(lambda: upload.entry.digest not in agent.uploads)
        until(lambda: fleet.over)
    first = noted(fleet, "phase", phase="aggregation")[0]
    assert (first["reported"], first["missing"]) == (1, 1)
    taken = {line["digest"]: line["into"] for line in noted(fleet, "accepted", device="dev-1")}
    refused = {line["digest"]: line["code"] for line in noted(fleet, "refused")}
    if late == "fold":
        assert (taken[upload.entry.digest], refused) == (1, {})
    else:
        assert refused == {upload.entry.digest: "E-ROUND-CLOSED"}
        assert set(taken.values()) == {1, 2}


@pytest.mark.parametrize("kind", KINDS)
def test_half_open_link_is_noticed_by_the_keepalive(kind, tmp_path, relay):
    wanted = recipe(goal=2, rounds=2)
    with members(kind, tmp_path, wanted) as fleet:
        between = relay(fleet.broker.port)
        set_link(fleet, "dev-1", url_of(between.port), keepalive_s=1)
        fleet.start("dev-1")
        drive(lambda: logged(fleet, "dev-1", "event=link-up"), why=fleet.tails)
        between.stalled = True
        fleet.start(COORDINATOR)
        fleet.start("dev-0")
        drive(lambda: logged(fleet, "dev-1", "event=link-down"), why=fleet.tails)
        between.stalled = False
        fleet.finish(60.0)
    assert model_of(fleet) == undisturbed_model(tmp_path / "undisturbed", wanted)


def slow_child(kind, tmp_path, keepalive_s, pause_s):
    """Stops the training child for a while, as a long round would keep it busy; the link must not notice."""
    wanted = recipe(goal=2, rounds=2)
    with members(kind, tmp_path, wanted) as fleet:
        set_link(fleet, "dev-1", keepalive_s=keepalive_s)
        for name in (COORDINATOR, "dev-0", "dev-1"):
            fleet.start(name)
        resident, children = psutil.Process(fleet.running["dev-1"].pid), []
        drive(lambda: children or children.extend(resident.children()), why=fleet.tails)
        children[0].suspend()
        time.sleep(pause_s)
        assert (0 in published(fleet), logged(fleet, "dev-1", "event=link-down")) == (False, [])
        children[0].resume()
        fleet.finish(60.0)
        assert not logged(fleet, "dev-1", "event=link-down")
        assert len(logged(fleet, "dev-1", "event=link-up")) == 1
    assert model_of(fleet) == undisturbed_model(tmp_path / "undisturbed", wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_link_lives_while_the_child_trains(kind, tmp_path):
    slow_child(kind, tmp_path, 1, 5.0)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_link_lives_while_the_child_trains_for_long(kind, tmp_path):
    slow_child(kind, tmp_path, 5, 25.0)


def own_mounts():
    """Tells whether a process here may mount a file system of its own."""
    words = ["unshare", "-m", "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
    return bool(shutil.which("unshare")) and not subprocess.run(words, capture_output=True, check=False).returncode


def test_full_disk_is_a_decline_and_passes(tmp_path):
    """The agent lives on a disk of 2 MB of its own, which fills up while the child trains."""
    if not own_mounts():
        pytest.skip("a mount namespace needs root, and a root folder that is a mount point")
    times = ("devices.deadline_s=60", "devices.quorum=0.5", "devices.selection_timeout_s=60")
    wanted = recipe(*times, goal=2, rounds=8, size=20_000)
    with members("mosquitto", tmp_path, wanted) as fleet:
        set_link(fleet, "dev-1")
        config, disk = fleet.folder / "dev-1.toml", fleet.folder / "dev-1"
        config.write_text(config.read_text() + "[limits]\nmin_free_disk_mb = 0\n")
        disk.mkdir()
        start_on_small_disk(fleet, config, disk)
        resident, children = psutil.Process(fleet.running["dev-1"].pid), []
        inside = Path(f"/proc/{resident.pid}/root") / disk.relative_to("/")
        fleet.start(COORDINATOR)
        drive(lambda: logged(fleet, "dev-1", "event=link-up"), why=fleet.tails)
        fleet.start("dev-0")
        drive(lambda: children or children.extend(resident.children()), why=fleet.tails)
        children[0].suspend()
        fill(inside / "filler")
        children[0].resume()
        drive(lambda: noted(fleet, "declined"), why=fleet.tails)
        (inside / "filler").unlink()
        fleet.finish(60.0)
        assert fleet.running["dev-1"].poll() is None
        left = [path.name for path in inside.rglob("*") if path.name.endswith(".tmp")]
    declined = noted(fleet, "declined")
    assert {(line["device"], line["code"]) for line in declined} == {("dev-1", "E-DISK-SPACE")}
    assert (0, "dev-1") in {(line["round"], line["device"]) for line in declined}
    assert len(noted(fleet, "accepted", device="dev-1")) == 8 - len(declined) > 0
    assert left == []


def start_on_small_disk(fleet, config, disk):
    script = 'mount -t tmpfs -o size=2m tmpfs "$1" && shift && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", script, "sh", str(disk), sys.executable, "-m", "edge_agent", "run"]
    with (fleet.logs / "dev-1.log").open("ab") as log:
        fleet.running["dev-1"] = subprocess.Popen(
            [*words, "--config", str(config)], cwd=Path(__file__).parents[2], stdout=log, stderr=log
        )


def fill(path):
    """Writes until nothing more fits."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
