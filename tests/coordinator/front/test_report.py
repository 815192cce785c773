"""Every figure of a report follows from the ledger, here added up once more from its lines."""

from __future__ import annotations

import json

import pytest

from coordinator.front.report import figures_of
from coordinator.state.database import open_database
from wire.errors import StateError
from wire.messages.blob import read_snapshot
from wire.spec import ModelSpec

PARAMS = 64 * 8 + 8 + 8 * 10 + 10


@pytest.fixture
def report(finished):
    return json.loads((finished.folder / "report.json").read_text())


@pytest.fixture
def lines(finished):
    return [json.loads(line) for line in (finished.folder / "ledger.jsonl").read_text().splitlines()]


def of(lines, event, **fields):
    return [line for line in lines if line["event"] == event and all(line.get(k) == v for k, v in fields.items())]


def test_the_file_is_what_the_ledger_gives(finished, report, lines):
    database = open_database(finished.home / "fleet.sqlite", read_only=True)
    assert figures_of(database.ledger(finished.run)) == report == figures_of(lines)
    assert list(database.ledger(finished.run)) == lines
    database.close()


def test_each_figure_added_up_again(finished, report, lines):
    assert (report["run"], report["task"], report["recipe"]) == (finished.run, "digits", "fedavg")
    assert (report["status"], report["simulated"], report["abandoned"]) == ("done", False, 0)
    assert report["rounds"] == len(of(lines, "phase", phase="published")) == 2
    assert report["updates"] == len(of(lines, "accepted")) == 4
    assert report["accuracy_by_round"] == [line["accuracy"] for line in of(lines, "evaluated")]
    assert report["accuracy"] == report["accuracy_by_round"][-1]
    assert 0 < report["accuracy"] < 1
    for way in ("up", "down"):
        assert report[f"bytes_{way}"] == sum(count for line in of(lines, "traffic") for count in line[way].values())
    assert report["refused"] == {"E-SIZE": 1}
    assert report["refused"] == {line["code"]: 1 for line in of(lines, "refused")}
    assert report["seconds"] == pytest.approx(lines[-1]["at"] - lines[0]["at"], abs=1e-3)
    assert report["model_digest"] == finished.model_digest


def test_bytes_cover_what_must_have_travelled(report, lines):
    updates = sum(line["bytes"] for line in of(lines, "accepted"))
    assert updates >= 4 * 4 * PARAMS
    assert updates < report["bytes_up"] < updates + 4 * 4096
    assert report["bytes_down"] > 2 * 4 * PARAMS


def test_every_accepted_update_is_in_exactly_one_aggregate(lines):
    counted = [
        (update["device"], update["round"], update["digest"])
        for line in of(lines, "phase", phase="evaluation")
        for update in line["updates"]
    ]
    accepted = [(line["device"], line["round"], line["digest"]) for line in of(lines, "accepted")]
    assert sorted(counted) == sorted(accepted)
    assert len(set(counted)) == len(counted)


def test_the_run_leaves_its_model(finished, report):
    spec = ModelSpec.from_json(json.loads((finished.folder / "spec.json").read_bytes()))
    assert spec.count == PARAMS
    read_snapshot((finished.folder / "model.blob").read_bytes(), report["model_digest"], spec)


def test_an_update_of_an_abandoned_round_is_in_no_aggregate(lines):
    accepted = of(lines, "accepted")[-1]
    gone = [{**accepted, "round": 9}, {**of(lines, "phase")[0], "round": 9, "phase": "abandoned", "reason": "few"}]
    assert figures_of([*lines, *gone])["updates"] == figures_of(lines)["updates"] == 4


def test_a_run_that_is_still_open(lines):
    figures = figures_of(line for line in lines[:1])
    assert (figures["status"], figures["rounds"], figures["updates"]) == ("open", 0, 0)
    assert (figures["accuracy"], figures["model_digest"]) == (None, None)


def test_an_evaluation_that_failed_is_unknown_and_not_the_one_before(lines):
    last = lines.index(of(lines, "evaluated")[-1])
    failed = {**{name: lines[last][name] for name in ("seq", "at", "run", "round", "device", "event")}, "error": "why"}
    figures = figures_of([*lines[:last], failed, *lines[last + 1 :]])
    assert figures["accuracy"] is None
    assert figures["accuracy_by_round"] == [of(lines, "evaluated")[0]["accuracy"], None]


def test_no_lines_no_figures():
    with pytest.raises(StateError, match="no such run"):
        figures_of([])
