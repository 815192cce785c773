"""`bitfleet rollout` while another process has the home: the same words, the same output, the same exit status."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack

import pytest

from coordinator.__main__ import main
from coordinator.front.demo import start_python
from coordinator.home import open_home, visit_home
from coordinator.recipe import load_recipe
from coordinator.rollout import run as run_module
from coordinator.rollout import start as start_module
from coordinator.rollout.book import RolloutBook
from coordinator.rollout.start import Request, start_rollout
from tests.coordinator.rollout.boards import FLEET, NOW_S, Scene
from tests.coordinator.rollout.exports import make_export
from tests.waiting import WAIT_S
from wire.errors import StateError

RUN = load_recipe("echo", ['model="vector-64"', "rounds=3", "devices.goal=2"])


class Clock:
    """Time as the following command sees it: while it sleeps, the process at work goes on."""

    def __init__(self, meanwhile):
        self.now_s, self.meanwhile = 0.0, meanwhile

    def monotonic(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds
        self.meanwhile()


@pytest.fixture
def busy(tmp_path, monkeypatch):
    """Returns a function that has a run at work in a home, with boards; a command that sleeps lets it go on."""
    with open_home(tmp_path / "home", durable=False, fleet=FLEET) as home:

        def make(*scripts):
            made = Scene(home, tmp_path, {f"dev-{at}": script for at, script in enumerate(scripts)}, RUN)
            made.open()
            make_export(tmp_path / "export")
            made.words = ["--home", home.folder, "--fleet", FLEET, "--devices", ",".join(made.boards)]
            monkeypatch.setattr(run_module, "time", Clock(lambda: [made.turn() for _ in range(40)]))
            return made

        yield make


def said(capsys, *words):
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_start_beside_a_run_is_as_start_by_itself(busy, capsys, tmp_path):
    made = busy("healthy", "unfit", "healthy")
    code, out, err = said(capsys, "rollout", "start", tmp_path / "export", *made.words, "--json")
    facts = json.loads(out)
    assert (code, facts["status"], facts["healthy"], facts["bits"]) == (0, "done", 2, {"4": 2}), err
    assert made.host.run.over


def test_one_that_is_held_and_then_resumed_and_aborted(busy, capsys, tmp_path):
    made = busy("refusing", "healthy", "healthy", "healthy", "healthy", "healthy")
    code, out, err = said(capsys, "rollout", "start", tmp_path / "export", *made.words)
    assert (code, "is held: failed: dev-0 (E-MODEL-GOLDEN)" in err, "E-MODEL-GOLDEN" in out) == (1, True, True)
    home = ["--home", made.home.folder, "--json"]
    assert said(capsys, "rollout", "resume", *home)[0] == 1  # it is held again
    code, out, _ = said(capsys, "rollout", "abort", *home)
    assert (code, json.loads(out)["status"], made.offered()) == (0, "aborted", set())


def test_resume_follows_to_the_end(busy, capsys, tmp_path):
    made = busy("silent", "healthy", "healthy")
    begin = ["rollout", "start", tmp_path / "export", *made.words, "--stage-s", "1"]
    assert said(capsys, *begin)[0] == 1
    code, out, err = said(capsys, "rollout", "resume", "--home", made.home.folder, "--continue-without-late", "--json")
    assert (code, json.loads(out)["status"]) == (0, "done")
    assert "dev-0 still may take it" in err


def test_a_fault_is_told_at_once(busy, capsys, tmp_path, monkeypatch):
    made = busy("healthy")
    monkeypatch.setattr(made.host, "_take_up", lambda name: setattr(made.host, "alone", name) or 1 / 0)
    code, _, err = said(capsys, "rollout", "start", tmp_path / "export", *made.words)
    assert (code, "cannot go on: E-INTERNAL: ZeroDivisionError" in err) == (1, True)


def test_whoever_stops_looking_on_stops_nothing(busy, capsys, tmp_path):
    made = busy("healthy", "healthy")

    def interrupt():
        raise KeyboardInterrupt

    run_module.time.meanwhile = interrupt
    code, _, err = said(capsys, "rollout", "start", tmp_path / "export", *made.words)
    shown = f"the roll-out goes on, `bitfleet rollout status --home {made.home.folder}` shows it"
    assert (code, shown in err) == (130, True), err
    made.name = RolloutBook(made.home.database).newest()
    assert made.finish() == "done"


@pytest.mark.parametrize("word", ["start", "resume", "abort"])
def test_the_process_at_work_serves_another_fleet(tmp_path, capsys, word):
    with open_home(tmp_path / "home", durable=False) as home:
        made = Scene(home, tmp_path, {"dev-0": "silent"})
        made.start()
    folder = make_export(tmp_path / "export")
    words = [folder, "--devices", "dev-0", "--fleet", FLEET] if word == "start" else []
    with open_home(tmp_path / "home", fleet="other") as home:
        code, _, err = said(capsys, "rollout", word, *words, "--home", tmp_path / "home")
        assert (code, "serves fleet 'other', not 'test'; wait until it has ended" in err) == (1, True)
        book = RolloutBook(home.database)
        assert (len(book.versions()), book.pending_wish(made.name)) == (1, "")


def test_a_process_that_ends_before_the_roll_out_leaves_it_to_the_one_that_followed(tmp_path, capsys, monkeypatch):
    """It waits a while before: what was killed may come back, and goes before."""
    export = make_export(tmp_path / "export")
    opened = open_home(tmp_path / "home", durable=False, fleet=FLEET)
    opened.__enter__()
    looks = []

    def meanwhile():
        looks.append(run_module.time.now_s)
        if len(looks) == 3:
            opened.__exit__(None, None, None)

    monkeypatch.setattr(run_module, "time", Clock(meanwhile))
    monkeypatch.setattr(
        run_module, "_carried_out", lambda serving, name: (_ for _ in ()).throw(StateError(f"carried out {name}"))
    )
    words = ["--home", tmp_path / "home", "--fleet", FLEET, "--devices", "dev-0"]
    code, _, err = said(capsys, "rollout", "start", export, *words)
    assert (code, "carried out rollout-1" in err) == (1, True)
    assert looks[-1] - looks[2] == pytest.approx(run_module._GRACE_S, abs=1.0)


def test_of_two_that_start_at_the_same_moment_one_wins(tmp_path, monkeypatch):
    """The other one has looked, and has its files on the shelf, before either is entered."""
    request = Request(FLEET, make_export(tmp_path / "export"), devices=("dev-0",))
    real, won = start_module.shelve, []

    def shelve(*values):
        at = real(*values)
        monkeypatch.setattr(start_module, "shelve", real)
        with visit_home(tmp_path / "home") as other:
            won.append(start_rollout(other, request, NOW_S))
        return at

    monkeypatch.setattr(start_module, "shelve", shelve)
    with visit_home(tmp_path / "home") as home:
        with pytest.raises(StateError, match=r"rollout-1-.* is not over; `bitfleet rollout resume`"):
            start_rollout(home, request, NOW_S)
        assert [RolloutBook(home.database).newest()] == won
        assert len(RolloutBook(home.database).versions()) == 1


def test_two_processes_start_while_a_third_has_the_home(tmp_path):
    words = ["rollout", "start", str(make_export(tmp_path / "export")), "--devices", "dev-0", "--fleet", FLEET]
    words += ["--home", str(tmp_path / "home")]
    with open_home(tmp_path / "home", durable=False, fleet=FLEET) as home, ExitStack() as stack:
        both = [stack.enter_context(start_python(tmp_path / f"log-{at}", "coordinator", *words)) for at in range(2)]
        ends_s = time.monotonic() + 2 * WAIT_S
        while not any(process.poll() is not None for process in both):
            assert time.monotonic() < ends_s
            time.sleep(0.05)
        (won,) = (process for process in both if process.poll() is None)
        with home.database.change():
            home.database.write("UPDATE rollouts SET status = 'done'")
        assert won.wait(WAIT_S) == 0
        assert sorted(process.poll() for process in both) == [0, 1]
        assert len(RolloutBook(home.database).versions()) == 1
    logs = "".join((tmp_path / f"log-{at}").read_text() for at in range(2))
    assert logs.count(f"is not over; `bitfleet rollout resume --home {tmp_path}/home` goes on with it") == 1
    assert logs.count(f"`bitfleet rollout abort --home {tmp_path}/home` ends it") == 1
