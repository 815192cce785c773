"""What `bitfleet-agent bench` has a running agent do: measure everything that can run here, now, and answer."""

from __future__ import annotations

import threading
from dataclasses import asdict, replace
from time import monotonic

import pytest

from edge_agent.config import ModelConfig
from edge_agent.serving import commands, slots
from edge_agent.serving.commands import bench
from edge_agent.serving.install import Installation
from edge_agent.serving.outcome import load_outcome
from edge_agent.serving.policy import Finding
from edge_agent.serving.slots import read_pointer
from edge_agent.serving.trial import measuring
from edge_agent.serving.trial.measuring import WISH, ask
from tests.edge_agent.serving.stage import sides
from tests.edge_agent.serving.stage.files import file_bytes
from wire.errors import StateError
from wire.messages.manifest import Measured

BEST = {"float-32": 0.97, "int8-8": 0.95, "int8-4": 0.9, "int8-2": 0.8}
FILES = {
    "float-32": file_bytes(2, width=100),
    "int8-8": file_bytes(3),
    "int8-4": file_bytes(4),
    "int8-2": file_bytes(5),
}


def ladder(publisher, version=1):
    """Returns a manifest of four variants, of which one needs a newer runtime than there is."""
    return publisher.manifest(
        version,
        FILES,
        edit=lambda v: replace(
            v, measured=Measured("lab", BEST[v.name]), min_runtime="99.0" if v.name == "int8-2" else "1.16"
        ),
    )


@pytest.fixture
def takes(monkeypatch):
    """Returns what each variant takes by the next probe, for a test to change; what is not in it takes 1 ms."""
    taken = {}

    def answer(header):
        found = taken.get(header["variant"], 1.0)
        finding = Finding(latency_ms=found) if isinstance(found, float) else found
        return {**asdict(finding), "options": {} if finding.code else {"hungry": "no"}}

    monkeypatch.setattr(sides, "answer", answer)
    return taken


def asked(one, wait_s=30.0):
    """Returns what the command says while this agent runs."""
    told, failed = [], []

    def command():
        try:
            told.append(bench(one.agent.config, True, wait_s, monotonic))
        except StateError as exc:
            failed.append(exc)

    helper = threading.Thread(target=command)
    helper.start()
    one.wait(lambda: told or failed)
    helper.join()
    assert not failed, failed
    return told[0]


def latencies(told):
    return {row["variant"]: row["latency_ms"] for row in told["variants"]}


@pytest.fixture
def board(side, takes):
    """Returns a side that serves int8-8, as its owner allows no larger file."""
    one = side(model=ModelConfig(health_s=0.0, max_bytes=len(FILES["int8-8"])))
    assert one.bring(ladder(one.publisher)).variant == "int8-8"
    return one


def test_every_variant_that_can_run_is_measured_though_the_owner_allows_it_not(board):
    assert latencies(asked(board)) == {"float-32": 1.0, "int8-8": 1.0, "int8-4": 1.0, "int8-2": None}
    board.wait(lambda: board.last.phase == "healthy")
    assert (board.last.variant, board.live) == ("int8-8", 1)


def test_what_no_profile_allows_is_measured_and_what_max_size_forbids_is_not(side, takes):
    one = side(model=ModelConfig(health_s=0.0, profiles=("float",), max_size_mb=0.0015))
    one.offer(ladder(one.publisher))
    assert one.until("refused").code == "E-MODEL-POLICY"
    told = asked(one)
    assert latencies(told) == {"float-32": None, "int8-8": 1.0, "int8-4": 1.0, "int8-2": None}
    assert told["why"].startswith("E-MODEL-POLICY: float-32: the file has ")
    assert next(v.digest for v in ladder(one.publisher).variants if v.name == "float-32") not in one.asked
    assert one.live == 0


def test_a_second_bench_measures_again_and_the_reason_is_the_new_one(board, takes):
    assert latencies(asked(board))["int8-8"] == 1.0
    takes |= {"int8-8": 5.0, "int8-4": 3.0}
    told = asked(board)
    assert latencies(told) == {"float-32": 1.0, "int8-8": 5.0, "int8-4": 3.0, "int8-2": None}
    assert told["why"].endswith("bytes, 5 ms here")
    board.wait(lambda: board.last.why == told["why"])
    assert board.last.variant == "int8-8"


def test_what_must_not_be_tried_again_is_not(board, takes):
    takes["int8-4"] = Finding(code="E-MODEL-CRASH", reason="SIGILL")
    asked(board)
    del takes["int8-4"]
    told = asked(board)
    assert latencies(told)["int8-4"] is None
    assert {row["variant"]: row["why"] for row in told["variants"]}["int8-4"] == "E-MODEL-CRASH: SIGILL"


def test_on_a_pinned_device_all_is_measured_and_nothing_changes(board, takes):
    slots.pin(board.models, 1)
    board.until("pinned")
    before, pointer, at = load_outcome(board.models), read_pointer(board.models), len(board.reports)
    takes["int8-8"] = 9.0
    board.changes["model"] = ModelConfig(health_s=0.0)
    board.start()
    board.until("pinned")
    assert latencies(asked(board)) == {"float-32": 1.0, "int8-8": 9.0, "int8-4": 1.0, "int8-2": None}
    assert (load_outcome(board.models), read_pointer(board.models)) == (before, pointer)
    assert {report.phase for report in board.reports[at:]} == {"pinned"}
    assert board.serving.installation is None


def test_a_pinned_device_on_which_no_variant_fits_answers_too(board, takes):
    slots.pin(board.models, 1)
    board.changes["model"] = ModelConfig(health_s=0.0, max_latency_ms=0.5)
    board.start()
    before = load_outcome(board.models)
    told = asked(board)
    assert told["why"].startswith("E-MODEL-POLICY: ")
    assert latencies(told)["int8-4"] == 1.0
    assert (load_outcome(board.models), board.last.phase) == (before, "pinned")


def test_another_offer_ends_it_with_an_answer(board, monkeypatch):
    monkeypatch.setattr(sides.QuickProbe, "poll", lambda probe, now_s: None)
    (board.models / WISH).touch()
    board.until("checking")
    board.link.publish(sides.TOPICS.device("dev-1", "offer"), b"", retain=True)
    board.wait((board.models / "bench.json").exists)
    assert b"the offer was withdrawn" in (board.models / "bench.json").read_bytes()


def test_one_variant_without_room_on_the_disk_costs_the_others_nothing(board, monkeypatch):
    def short(one, lacking, portion):
        return 1 if lacking >= len(FILES["float-32"]) else 0

    monkeypatch.setattr(Installation, "_short_bytes", short)
    told = asked(board)
    assert latencies(told) == {"float-32": None, "int8-8": 1.0, "int8-4": 1.0, "int8-2": None}
    assert "E-DISK-SPACE" in told["variants"][0]["why"]
    board.wait(lambda: board.last.phase == "healthy")


@pytest.mark.parametrize("probed", [True, False])
def test_what_serves_stays_though_no_more_memory_is_free_than_for_a_smaller_one(board, takes, probed):
    """The application holds what it takes already; a second copy to measure may find no room."""
    needs = {name: Finding(latency_ms=1.0, memory_bytes=size) for name, size in (("int8-8", 5000), ("int8-4", 10))}
    takes |= needs
    board.serving.free_memory_bytes = lambda: 1000
    if not probed:
        takes["int8-8"] = Finding(code="E-MODEL-LOAD", reason="it takes more memory than is free")
    told = asked(board)
    assert latencies(told)["int8-8"] == (1.0 if probed else None)
    board.wait(lambda: board.serving.installation is None)
    assert (board.last.phase, board.last.variant, board.live) == ("healthy", "int8-8", 1)
    assert slots.read_slot(board.models, read_pointer(board.models).serving).facts["options"] == {"hungry": "no"}
    assert {row["variant"]: row["fits"] for row in told["variants"]}["int8-8"]


@pytest.mark.parametrize("pinned", [True, False])
def test_what_was_only_measured_is_not_kept(board, pinned):
    if pinned:
        slots.pin(board.models, 1)
        board.until("pinned")
    before = sorted(path.name for path in (board.models / "store").iterdir())
    assert latencies(asked(board))["float-32"] == 1.0
    board.wait(lambda: board.serving.installation is None)
    assert sorted(path.name for path in (board.models / "store").iterdir()) == before


def test_a_late_answer_is_not_taken_for_the_next(board, takes, monkeypatch):
    real = sides.QuickProbe.poll
    monkeypatch.setattr(sides.QuickProbe, "poll", lambda probe, now_s: None)
    ask(board.models)  # by a command that goes before there is an answer
    board.until("checking")
    monkeypatch.setattr(sides.QuickProbe, "poll", real)
    board.wait(lambda: board.serving.installation.findings)
    takes |= dict.fromkeys(FILES, 7.0)
    looked, begun_late = measuring.take_answer, []

    def slowly(folder):
        """Looks only when the late answer is there, and again once the agent has taken the wish."""
        if not begun_late:
            board.wait((folder / "bench.json").exists)
            begun_late.append(looked(folder))
            board.wait(lambda: not (folder / WISH).exists())
        else:
            board.turn()
        return looked(folder)

    monkeypatch.setattr(commands, "take_answer", slowly)
    told = bench(board.agent.config, True, 30.0, monotonic)
    assert begun_late == [None]
    assert latencies(told) == {"float-32": 7.0, "int8-8": 7.0, "int8-4": 7.0, "int8-2": None}
