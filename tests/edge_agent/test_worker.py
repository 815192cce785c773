"""The worker with a real child."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

from edge_agent import worker as worker_module
from edge_agent.config import TrainConfig
from edge_agent.kept.outbox import entries
from edge_agent.work import Work
from edge_agent.worker import KILLED, ChildWorker, Result
from tests.edge_agent.boards import config, echo_spec, keep, plan, spec_bytes
from wire.frame import Kind, encode_frame
from wire.messages.plan import encode_plan
from wire.pipe import Child, python, python_module

ROOT = Path(__file__).parents[2]
WAIT_S = 60.0


@pytest.fixture
def board(tmp_path, monkeypatch):
    """Returns a folder with a store and an outbox; children are not let go for want of memory here."""
    monkeypatch.setattr(worker_module, "free_memory_bytes", lambda: None)
    keep(tmp_path / "store", spec_bytes(echo_spec()))
    (tmp_path / "outbox").mkdir()
    return tmp_path


@pytest.fixture
def worker():
    """Returns a function that makes a worker; every child is gone afterwards."""
    made = []

    def make(**settings):
        made.append(ChildWorker(TrainConfig(nice=0, **settings)))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def start(worker, board, asked=None):
    asked = asked or plan()
    work = Work.begin(asked, encode_plan(asked), board / "store", 0.0)
    work.start(worker, config(board), board / "store", board / "outbox")


def result_of(worker, now_s=0.0):
    ends_s = monotonic() + WAIT_S
    while monotonic() < ends_s:
        select.select(worker.wake, [], [], 0.2)
        result = worker.poll(now_s)
        if result is not None:
            return result
    raise AssertionError(f"no result within {WAIT_S} s")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_job_leaves_an_update_in_the_outbox(board, worker):
    one = worker()
    start(one, board)
    result = result_of(one)
    (entry,) = entries(board / "outbox")
    assert (result.code, result.digest, result.size) == ("", entry.digest, entry.size)
    assert result.metrics["seconds"] >= 0
    assert result.metrics["down_bytes"] == 0
    assert result.metrics["peak_bytes"] > 1_000_000
    assert result.metrics["peak_source"] in ("VmHWM", "ru_maxrss")


def test_the_child_lingers_for_the_next_job_and_then_leaves(board, worker):
    one = worker(linger_s=60.0)
    start(one, board)
    first = result_of(one, now_s=100.0)
    pid = one.errand.child.process.pid
    assert one.poll(159.0) is None
    start(one, board, plan(round=1))
    second = result_of(one, now_s=160.0)
    assert one.errand.child.process.pid == pid
    assert second.digest != first.digest
    one.poll(219.9)
    assert alive(pid)
    one.poll(220.0)
    assert one.errand.child is None
    assert not alive(pid)


def test_without_lingering_it_leaves_with_the_round(board, worker):
    one = worker(linger_s=0.0)
    start(one, board)
    result_of(one)
    pid = one.errand.child.process.pid
    one.poll(0.0)
    assert not alive(pid)


def test_memory_pressure_lets_an_idle_child_go_but_not_a_busy_one(board, worker, monkeypatch):
    one = worker(linger_s=1e6)
    monkeypatch.setattr(worker_module, "free_memory_bytes", lambda: 50_000_000)
    start(one, board)
    assert result_of(one).code == ""
    assert one.errand.child is not None
    one.poll(0.0)
    assert one.errand.child is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_child_is_told_apart_from_a_refusal(board, worker, number):
    one = worker()
    start(one, board)
    one.errand.child.process.send_signal(number)
    result = result_of(one)
    assert (result.code, result.reason) == (KILLED, f"the child process ended: killed by {number.name}")
    assert (one.errand.child, one.wake) == (None, ())
    start(one, board)
    assert result_of(one).code == ""


def test_a_child_that_died_while_idle_is_replaced(board, worker):
    one = worker()
    start(one, board)
    result_of(one)
    one.errand.child.process.kill()
    one.errand.child.process.wait()
    start(one, board, plan(round=1))
    assert result_of(one).code == ""


def test_damaged_bytes_from_the_child_end_it(board, worker, monkeypatch):
    one = worker()
    start(one, board)
    pid = one.errand.child.process.pid
    frame = bytearray(encode_frame(Kind.RESULT, {"digest": "0" * 64}))
    frame[-1] ^= 1
    read, write = os.pipe()
    with os.fdopen(read), os.fdopen(write, "wb", buffering=0) as other:
        other.write(frame)
        monkeypatch.setattr(Child, "fd", read)
        result = one.poll(0.0)
    assert result.code == KILLED
    assert "sent nonsense: E-CRC" in result.reason
    assert not alive(pid)


def test_an_error_of_the_child_comes_back_with_its_code_once(board, worker):
    one = worker()
    store = board / "store"
    (store / plan().spec).write_bytes(b"{}")
    start(one, board)
    result = result_of(one)
    assert result.code == "E-BLOB"
    assert result.reason.startswith("spec ")
    assert not entries(board / "outbox")


def test_stop_ends_the_child_in_the_middle(board, worker):
    one = worker()
    start(one, board)
    pid = one.errand.child.process.pid
    one.stop()
    one.stop()
    assert not alive(pid)
    assert one.poll(0.0) is None


def test_the_child_is_first_to_go_and_gives_way(board, worker):
    one = ChildWorker(TrainConfig(nice=7))
    try:
        start(one, board)
        result_of(one)
        pid = one.errand.child.process.pid
        assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "800"
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, os.getpriority(os.PRIO_PROCESS, 0) + 7)
    finally:
        one.stop()


SCRIPT = """
import json, sys, select
from pathlib import Path
from edge_agent.config import TrainConfig
from edge_agent.worker import ChildWorker
worker = ChildWorker(TrainConfig(nice=0, linger_s=1e6))
job = json.loads(sys.stdin.read())
worker.start(job["header"], bytes.fromhex(job["plan"]))
result = None
while result is None:
    select.select(worker.wake, [], [], 1.0)
    result = worker.poll(0.0)
maps = Path(f"/proc/{worker.errand.child.process.pid}/maps").read_text()
worker.stop()
here = sorted({"numpy", "torch"} & set(sys.modules))
print(json.dumps({"code": result.code, "child": "numpy" in maps, "here": here}))
"""


class _Caught:
    def start(self, header, plan):
        self.job = json.dumps({"header": header, "plan": plan.hex()})


def test_what_the_child_loads_stays_in_the_child(board):
    caught = _Caught()
    start(caught, board)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=caught.job,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"code": "", "child": True, "here": []}


def test_files_where_a_person_happens_to_be_are_not_imported(board, worker, own_files):
    one = worker()
    start(one, board)
    assert result_of(one).code == ""
    code = "import pathlib, sys, wire; print(wire.__file__, pathlib.Path.cwd(), sys.argv[1:], sep='|')"
    done = subprocess.run(python(code, "a b", "c"), capture_output=True, text=True, check=True)
    assert done.stdout == f"{ROOT / 'wire/__init__.py'}|{own_files}|['a b', 'c']\n"
    done = subprocess.run(python_module("edge_agent", "--help"), capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: bitfleet-agent")


def test_a_result_says_nothing_by_itself():
    assert Result() == Result("", 0, {}, "", "")
