"""A model goes out while the same boards train the next one: neither disturbs the other, and a late board gets it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from coordinator.broker import start_broker
from coordinator.front.demo import start_python
from coordinator.home import in_use, keys_of
from coordinator.recipe import load_recipe
from coordinator.rollout.book import RolloutBook
from coordinator.rollout.shown import facts_of
from coordinator.state.database import open_database
from tests.conftest import started
from tests.end_to_end.fleet import Fleet, undisturbed_model
from tests.end_to_end.rollout.model_board import ROOT, Board, golden_of, leave_rows, report_of

BROKERS = ["mosquitto", "iotcore"]
LONGEST_S = 120.0
RECIPE = load_recipe("fedavg", ["rounds=12", "devices.goal=3"])


@dataclass
class Training:
    """A fleet whose agents train and serve models, with what a person sees of its home."""

    fleet: Fleet

    def until(self, wanted, why):
        ends_s = time.monotonic() + LONGEST_S
        while not wanted():
            self.fleet.revive()
            assert time.monotonic() < ends_s, f"{why}\n{self.fleet.tails()}"
            time.sleep(0.05)

    def facts(self):
        database = open_database(self.fleet.home / "fleet.sqlite", read_only=True)
        try:
            book = RolloutBook(database)
            return facts_of(book, book.newest()) if book.versions() else {"devices": []}
        finally:
            database.close()

    def all_healthy(self):
        return {row["outcome"] for row in self.facts()["devices"]} == {"healthy"}

    def published(self):
        return sum(line["event"] == "phase" and line["phase"] == "published" for line in self.fleet.ledger())

    def check_answers(self, exports, device):
        """The board answers the golden inputs as the variant does that it reports."""
        board = Board(self.fleet.folder, device, self.fleet.broker.url, self.fleet.home)
        inputs, golden = golden_of(exports)
        told = board.says("infer", str(leave_rows(self.fleet.folder / "golden.npy", inputs)))
        tolerance = next(one["tolerance"] for one in report_of(exports)["variants"] if one["name"] == told["variant"])
        assert np.abs(np.array(told["outputs"]) - golden[told["variant"]]).max() <= tolerance


def prepared(folder: Path, broker) -> Training:
    """Returns a fleet that is not started yet, whose boards take models too."""
    made = Fleet(folder, RECIPE, broker)
    _, models = keys_of(made.home)
    for device in made.devices:
        config = folder / f"{device}.toml"
        config.write_text(f'model_keys = ["{models}"]\n{config.read_text()}\n[model]\nhealth_s = 0.5\n')
    return Training(made)


@pytest.mark.parametrize("kind", BROKERS)
def test_an_earlier_export_goes_out_while_the_boards_train(kind, ladder, tmp_path):
    started(kind, tmp_path / "probe").stop()
    with start_broker(kind, tmp_path / "broker") as broker:
        made = prepared(tmp_path / "fleet", broker)
        try:
            check(made, ladder, tmp_path)
        finally:
            made.fleet.stop()


def check(made, ladder, tmp_path):
    fleet = made.fleet
    fleet.start_all()
    made.until(lambda: fleet.run and made.published() >= 2, "the run has not begun")
    fleet.kill("dev-2")
    link = ["--home", str(fleet.home), "--fleet", "test", "--broker", fleet.broker.url]
    begin = ["rollout", "start", str(ladder), *link, "--devices", ",".join(fleet.devices), "--stage-s", "10"]
    start = subprocess.run(
        [sys.executable, "-m", "coordinator", *begin, "--continue-without-late", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=LONGEST_S,
    )  # fmt: skip
    assert start.returncode == 0, start.stderr + fleet.tails()
    facts = json.loads(start.stdout)
    assert (facts["status"], facts["devices"][2]["outcome"]) == ("done", "late")
    assert not fleet.over, "the run waits for the third board"
    fleet.restart("dev-2")
    made.until(lambda: fleet.over, "the run does not end")
    assert fleet.ledger()[-1]["model"] == undisturbed_model(tmp_path / "undisturbed", RECIPE)
    with start_python(tmp_path / "serve.log", "coordinator", "rollout", "serve", *link) as process:
        made.until(made.all_healthy, "the late board does not take the model")
        made.until(lambda: in_use(fleet.home), "it does not serve")
        process.terminate()
        assert process.wait(LONGEST_S) == 0, (tmp_path / "serve.log").read_text()
    assert made.facts()["status"] == "done"
    for device in fleet.devices:
        made.check_answers(ladder, device)
