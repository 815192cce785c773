"""What a board is offered and must not take: it says why, and the last good model goes on serving."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass

import numpy as np
import pytest

import coordinator.rollout.publish as publishing
from coordinator.home import keys_of
from edge_agent.serving.model import Model
from tests.conftest import started
from tests.end_to_end.rollout.broken_files import BROKEN, broken_export, shadow_runtime, undefined_for_zeros
from tests.end_to_end.rollout.model_board import FLEET, STAGE_S, Board, call, golden_of, leave_rows, roll_out
from wire.errors import WireError
from wire.sign import make_key, signer

GOOD, VERSION = "float-4", 7
POLICY = {"health_s": 0.5, "max_latency_ms": 5.0}


@dataclass
class Served:
    """A board that serves a good model, all that it said of it, and an application that uses it."""

    board: Board
    exports: object
    rows: object
    answers: dict
    application: Model
    predicted: object

    def offer(self, exports, home=None, **changes):
        """Returns how the one device of a roll-out of this export ended."""
        rollout = roll_out(home or self.board.home, self.board.broker, exports, self.board.name, **changes)
        return rollout, rollout.members[0]

    def check_serving(self, code, phase="refused"):
        """The good model serves as before, to the command and to the application, and the agent says why."""
        models = self.board.says("models")
        slots = {slot["slot"]: slot for slot in models["slots"]}
        serving = slots[models["serving"]]
        assert (models["phase"], models["code"]) == (phase, code), models
        assert (serving["version"], serving["variant"], serving["healthy"]) == (VERSION, GOOD, True)
        assert self.board.says("infer", str(self.rows)) == self.answers
        self.application.follow()
        assert self.application.version == VERSION
        assert np.array_equal(self.application.predict(np.load(self.rows)), self.predicted)


@pytest.fixture(scope="module")
def served(ladder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with started("mosquitto", folder / "broker") as broker:
        board = Board(folder, "dev", broker.url, folder / "home", shadow_runtime(folder / "shadow"))
        board.start(**POLICY)
        try:
            good = broken_export(ladder, folder / "good", GOOD, lambda model: model)
            ended = roll_out(board.home, broker.url, good, board.name, VERSION)
            assert (ended.status, ended.version) == ("done", VERSION), board.log
            rows = leave_rows(folder / "golden.npy", golden_of(ladder)[0])
            application = Model.current(board.state_dir)
            answers, predicted = board.says("infer", str(rows)), application.predict(np.load(rows))
            assert np.allclose(predicted, answers["outputs"], atol=1e-5)
            yield Served(board, ladder, rows, answers, application, predicted)
        finally:
            board.stop()


def check_refused(served, exports, code, outcome="failed", **how):
    agent = served.board.agent
    rollout, member = served.offer(exports, **how)
    report = member.report
    assert (rollout.status, member.outcome) == ("stopped", outcome), served.board.log
    assert (report.offered, report.phase, report.code) == (rollout.version, "refused", code), served.board.log
    assert (report.active, report.healthy, report.variant) == (VERSION, VERSION, GOOD)
    served.check_serving(code)
    assert served.board.agent is agent and served.board.runs
    return report


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_refused(name, served, tmp_path):
    broken = BROKEN[name]
    exports = broken_export(served.exports, tmp_path / "exports", GOOD, broken.breaking)
    outcome = "unfit" if broken.code == "E-MODEL-POLICY" else "failed"
    assert broken.words in check_refused(served, exports, broken.code, outcome).reason


def weaker(served, folder):
    """Returns a good export that nothing is wrong with but who publishes it, and how."""
    return broken_export(served.exports, folder / "exports", "float-2", lambda model: model)


def test_unsigned(served, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "signer", lambda key: None)
    check_refused(served, weaker(served, tmp_path), "E-SIGNATURE")


def test_signed_by_another_who_names_the_right_key(served, tmp_path, monkeypatch):
    make_key(tmp_path / "other.key")
    monkeypatch.setattr(publishing, "signer", lambda key: signer(tmp_path / "other.key"))
    check_refused(served, weaker(served, tmp_path), "E-SIGNATURE")


def test_signed_with_a_key_that_the_board_does_not_know(served, tmp_path):
    make_key(tmp_path / "other.key")
    exports, key = weaker(served, tmp_path), str(tmp_path / "other.key")
    words = ["--home", str(served.board.home), "--fleet", FLEET, "--broker", served.board.broker, "--devices", "dev"]
    words += ["--stage-s", str(STAGE_S), "--continue-without-failed", "--key", key, "--json"]
    facts = json.loads(call("coordinator", "rollout", "start", str(exports), *words, status=1).stdout)
    (row,) = facts["devices"]
    assert (facts["status"], row["outcome"], row["code"]) == ("stopped", "failed", "E-MODEL-KEY"), served.board.log
    assert row["active"] == row["healthy"] == VERSION
    served.check_serving("E-MODEL-KEY")


def test_an_old_version_that_was_signed_again(served, tmp_path):
    """Whoever has the keys but not the database cannot take a board below what it has accepted."""
    home = tmp_path / "home"
    keys_of(home)
    for key in ("round.key", "models.key"):
        (home / key).write_bytes((served.board.home / key).read_bytes())
    check_refused(served, weaker(served, tmp_path), "E-VERSION-FLOOR", home=home, least_version=VERSION - 1)


def test_a_model_that_fails_the_application_is_rolled_back(served, tmp_path):
    """What the golden inputs do not show: the application notes it while the model is on trial, and it goes."""
    exports = broken_export(served.exports, tmp_path / "exports", GOOD, undefined_for_zeros)
    served.board.stop()
    served.board.start(**{**POLICY, "health_s": 6 * STAGE_S})  # longer than the whole test: only the note can end it
    application, over, seen = Model.current(served.board.state_dir), threading.Event(), set()

    def use():
        while not over.wait(0.02):
            seen.add(application.version)
            try:
                application.predict(np.zeros(application.input, np.float32))
            except WireError as exc:
                seen.update((exc.code, application.version))

    thread = threading.Thread(target=use)
    thread.start()
    try:
        rollout, member = served.offer(exports)
    finally:
        over.set()
        thread.join()
    report = member.report
    assert (member.outcome, report.phase, report.code) == ("failed", "rolled-back", "E-MODEL-HEALTH"), served.board.log
    assert "E-MODEL-NAN" in report.reason
    assert {VERSION, rollout.version, "E-MODEL-NAN"} <= seen
    served.check_serving("E-MODEL-HEALTH", "rolled-back")
