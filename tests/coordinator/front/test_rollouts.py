"""`bitfleet rollout`, `manifest` and `keys` as a person types them; the last tests over a real broker."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic, sleep

import pytest

from coordinator.__main__ import main
from coordinator.front.demo import start_python
from coordinator.home import in_use, open_home
from coordinator.rollout.book import RolloutBook
from coordinator.state.database import open_database
from tests.coordinator.rollout.boards import Board, Scene
from tests.coordinator.rollout.exports import make_export
from tests.waiting import WAIT_S

ROOT = Path(__file__).parents[3]


def output(capsys, *words):
    """Returns the exit status of a command, and what it printed as JSON if it did."""
    capsys.readouterr()
    code = main([str(word) for word in words])
    printed = capsys.readouterr()
    if code or "--json" not in words:
        return code, printed.err + printed.out
    return code, json.loads(printed.out)


@pytest.fixture
def ended(tmp_path):
    """A home whose one roll-out ended: a healthy device and one that cannot have the model."""
    with open_home(tmp_path / "home", durable=False) as home:
        made = Scene(home, tmp_path, {"dev-0": "healthy", "dev-1": "unfit"})
        assert made.run() == "done"
    return tmp_path / "home"


@pytest.fixture
def begun(tmp_path):
    """A home whose roll-out was interrupted; its devices say nothing."""
    with open_home(tmp_path / "home", durable=False) as home:
        made = Scene(home, tmp_path, {"dev-0": "silent", "dev-1": "silent"})
        made.start()
    return tmp_path / "home"


def test_status_says_which_width_each_device_runs_and_why(ended, capsys, monkeypatch):
    code, facts = output(capsys, "rollout", "status", "--home", ended, "--json")
    assert (code, facts["status"], facts["version"], facts["bits"]) == (0, "done", 1, {"4": 1})
    one, other = facts["devices"]
    assert (one["device"], one["stage"], one["outcome"], one["variant"], one["bits"]) == (
        "dev-0", "canary", "healthy", "int8-4", 4.0
    )  # fmt: skip
    assert one["why"] == "best accuracy that fits"
    assert (one["staged"], one["active"], one["healthy"]) == (1, 1, 1)
    assert (other["outcome"], other["code"]) == ("unfit", "E-MODEL-POLICY")
    monkeypatch.setenv("COLUMNS", "200")
    code, text = output(capsys, "rollout", "status", "--home", ended, "--rollout", facts["rollout"])
    assert code == 0
    for said in (
        "staged/active/healthy",
        "1/1/1",
        "int8-4",
        "4.0",
        "best accuracy that fits",
        "E-MODEL-POLICY",
        "so it says",
    ):
        assert said in text
    code, text = output(capsys, "rollout", "status", "--home", ended, "--rollout", "other")
    assert (code, "no roll-out 'other'" in text) == (1, True)


def test_what_is_not_known_of_a_device_is_not_zero(begun, capsys):
    _, facts = output(capsys, "rollout", "status", "--home", begun, "--json")
    row = facts["devices"][0]
    assert (row["staged"], row["bits"], row["phase"], row["stage"]) == (None, None, "", "")


def test_manifests(ended, capsys):
    code, manifest = output(capsys, "manifest", "show", "1", "--home", ended, "--json")
    assert (code, manifest["version"], manifest["model"]) == (0, 1, "digits")
    assert [variant["bits"] for variant in manifest["variants"]] == [8.0, 4.0, 4.0]
    assert (ended / "models" / "blobs" / manifest["digest"]).is_file()
    code, versions = output(capsys, "manifest", "list", "--home", ended, "--json")
    assert (code, [(row["version"], row["digest"]) for row in versions]) == (0, [(1, manifest["digest"])])
    code, text = output(capsys, "manifest", "show", "2", "--home", ended)
    assert (code, "no version 2" in text) == (1, True)


def test_keys_are_made_when_first_asked_for_and_stay(tmp_path, capsys):
    code, keys = output(capsys, "keys", "--home", tmp_path / "home", "--json")
    assert code == 0
    assert keys["coordinator_key"] != keys["model_keys"][0]
    assert output(capsys, "keys", "--home", tmp_path / "home", "--json") == (0, keys)
    with open_home(tmp_path / "home") as home:
        assert home.public_key == keys["coordinator_key"]
        code, text = output(capsys, "keys", "--home", tmp_path / "home")  # also while a coordinator is at work
    assert (code, text) == (
        0, f'coordinator_key = "{keys["coordinator_key"]}"\nmodel_keys = ["{keys["model_keys"][0]}"]\n'
    )  # fmt: skip
    code, other = output(capsys, "keys", "--home", tmp_path / "home", "--key", tmp_path / "offline", "--json")
    assert (code, other["model_keys"] != keys["model_keys"]) == (0, True)
    assert output(capsys, "keys", "--home", tmp_path / "home", "--key", tmp_path / "offline", "--json") == (0, other)


def test_pause_without_a_process(begun, capsys):
    code, facts = output(capsys, "rollout", "pause", "--home", begun, "--json")
    assert (code, facts["status"], facts["reason"], facts["wish"]) == (0, "paused", "paused by a person", "")


def test_pause_is_left_for_the_process_that_has_the_roll_out(begun, capsys):
    with open_home(begun, fleet="test"):
        assert in_use(begun)
        code, facts = output(capsys, "rollout", "pause", "--home", begun, "--json")
    assert (code, facts["wish"], facts["status"]) == (0, "pause", "running")
    assert not in_use(begun)


def test_pause_beside_the_process_of_another_fleet(begun, capsys):
    with open_home(begun, fleet="other"):
        code, facts = output(capsys, "rollout", "pause", "--home", begun, "--json")
    assert (code, facts["wish"], facts["status"]) == (0, "", "paused")


@pytest.mark.parametrize("word", ["pause", "resume"])
def test_nothing_is_open(ended, capsys, word):
    code, text = output(capsys, "rollout", word, "--home", ended)
    assert (code, "no roll-out is open" in text, "is done" in text) == (1, True, True)


@pytest.mark.parametrize("words", [["rollout", "status"], ["rollout", "pause"], ["manifest", "list"]])
def test_no_home_and_a_home_without_roll_outs(tmp_path, capsys, words):
    code, text = output(capsys, *words, "--home", tmp_path / "none")
    assert (code, "E-STATE" in text, (tmp_path / "none").exists()) == (1, True, False)
    open_database(tmp_path / "fleet.sqlite").close()
    code, text = output(capsys, *words, "--home", tmp_path)
    assert (code, "there are no roll-outs here" in text) == ((0, False) if words[0] == "manifest" else (1, True))


def test_a_home_of_before(tmp_path, capsys):
    database = open_database(tmp_path / "fleet.sqlite")
    database.link.executescript("DROP TABLE rollouts; DROP TABLE rollout_devices; DROP TABLE manifests;")
    database.close()
    code, text = output(capsys, "rollout", "status", "--home", tmp_path)
    assert (code, "the roll-outs cannot be read" in text) == (1, True)


def test_a_wrong_export(tmp_path, capsys):
    home = ["--home", tmp_path / "home", "--devices", "a"]
    code, text = output(capsys, "rollout", "start", tmp_path / "nothing", *home)
    assert (code, "report.json" in text, "bitfleet export" in text) == (1, True, True)
    code, text = output(capsys, "rollout", "start", *home)
    assert (code, "EXPORT_DIR or --content" in text) == (1, True)


class Fleet:
    """Boards over a real broker, each in a thread, until the test ends."""

    def __init__(self, client, broker, home, scripts):
        with open_home(home) as opened:
            scene = Scene(opened, home, scripts)
            keys = next(iter(scene.boards.values())).keys
        self.over = threading.Event()
        self.calls = {name: [] for name in scripts}
        self.boards = []
        for name, script in scripts.items():
            transport = client(broker, name)
            transport.subscribe(f"fl/1/test/d/{name}/offer")
            self.boards.append(Board(name, script, None, keys, transport))
        self.threads = [threading.Thread(target=self._run, args=(board,)) for board in self.boards]
        for thread in self.threads:
            thread.start()

    def _run(self, board):
        while not self.over.is_set():
            board.step(0.05)
            if self.calls[board.device]:
                self.calls[board.device].pop()()

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join()
            assert not thread.is_alive()


@pytest.fixture
def fleet(client, mosquitto, tmp_path):
    """Returns a function that puts boards on a broker; it gives the words that every command needs."""
    made = []

    def start(**scripts):
        broker = mosquitto()
        scripts = {name.replace("_", "-"): script for name, script in scripts.items()}
        made.append(Fleet(client, broker, tmp_path / "home", scripts))
        return ["--home", str(tmp_path / "home"), "--broker", broker.url]

    start.made = made
    yield start
    for one in made:
        one.stop()


def bitfleet(*words):
    command = [sys.executable, "-m", "coordinator", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=4 * WAIT_S, check=False)
    return done.returncode, done.stdout, done.stderr


def until(home, wanted):
    """Waits until the newest roll-out is as wanted."""
    ends_s = monotonic() + WAIT_S
    while monotonic() < ends_s:
        if (home / "fleet.sqlite").exists():
            database = open_database(home / "fleet.sqlite", read_only=True)
            try:
                if wanted(RolloutBook(database)):
                    return
            finally:
                database.close()
        sleep(0.05)
    raise AssertionError("it did not come to that")


def test_a_roll_out_over_a_real_broker(fleet, tmp_path):
    words = fleet(dev_0="healthy", dev_1="healthy", dev_2="unfit", dev_3="healthy")
    export = make_export(tmp_path / "export")
    devices = ["--devices", "dev-0,dev-1,dev-2,dev-3", "--canary", "dev-1", "--fleet", "test"]
    code, out, err = bitfleet("rollout", "start", export, *words, *devices, "--json")
    assert code == 0, err
    facts = json.loads(out)
    assert (facts["status"], [row["outcome"] for row in facts["devices"]].count("healthy")) == ("done", 3)
    assert facts["devices"][0]["device"] == "dev-1"
    code, out, err = bitfleet("rollout", "start", "--content", "1", *words, *devices, "--json")
    assert (code, json.loads(out)["version"]) == (0, 2), err


def test_pause_kill_resume_and_abort_over_a_real_broker(fleet, tmp_path):
    words = fleet(dev_0="silent", dev_1="healthy")
    home, export = tmp_path / "home", make_export(tmp_path / "export")
    begin = ["rollout", "start", str(export), *words, "--devices", "dev-0,dev-1", "--fleet", "test"]
    with start_python(tmp_path / "log", "coordinator", *begin) as process:
        until(home, lambda book: book.versions() and book.load(book.newest()).members[0].stage == 0)
        assert bitfleet("rollout", "pause", "--home", home)[0] == 0
        until(home, lambda book: book.load(book.newest()).status == "paused")
        process.kill()
        process.wait()
    words = [*words, "--fleet", "test"]
    with start_python(tmp_path / "log", "coordinator", "rollout", "resume", *words) as process:
        until(home, lambda book: book.load(book.newest()).status == "running")
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 130
    command = f"bitfleet rollout resume {' '.join(words[:4])}"  # home and broker: the home knows the fleet
    assert f"stopped; `{command}` goes on where it was" in (tmp_path / "log").read_text()
    code, out, err = bitfleet("rollout", "abort", *words, "--json")
    assert (code, json.loads(out)["status"]) == (0, "aborted"), err
    until(home, lambda book: not book.withdrawals("test"))


def test_serve_stays_for_a_late_device_and_ends_well_on_sigterm(fleet, tmp_path):
    words = fleet(dev_0="healthy", dev_1="stuck", dev_2="healthy")
    words = [*words, "--fleet", "test"]
    begin = [make_export(tmp_path / "export"), *words, "--devices", "dev-0,dev-1,dev-2", "--stage-s", "1"]
    code, _, err = bitfleet("rollout", "start", *begin, "--continue-without-late")
    assert (code, "dev-1 still may take it: `bitfleet rollout serve --home " in err) == (0, True), err
    with start_python(tmp_path / "log", "coordinator", "rollout", "serve", *words) as process:
        until(tmp_path / "home", lambda book: in_use(tmp_path / "home"))
        board = fleet.made[0].boards[1]
        board.script = "healthy"  # its pieces arrive from now on, and it asks for them again
        fleet.made[0].calls["dev-1"].append(lambda: board._fetch(board.offers[-1].manifest, board.offers[-1].size))
        until(tmp_path / "home", lambda book: book.load(book.newest()).members[1].outcome == "healthy")
        process.terminate()
        assert process.wait(WAIT_S) == 0
    assert "bitfleet:" not in (tmp_path / "log").read_text()


def test_a_held_roll_out_says_what_can_be_done(fleet, tmp_path):
    words = fleet(dev_0="refusing", dev_1="healthy")
    begin = [make_export(tmp_path / "export"), *words, "--devices", "dev-0,dev-1", "--fleet", "test"]
    code, out, err = bitfleet("rollout", "start", *begin)
    assert (code, "held: failed: dev-0 (E-MODEL-GOLDEN)" in err, "rollout abort" in err) == (1, True, True)
    assert "E-MODEL-GOLDEN" in out
