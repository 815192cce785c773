"""Memory and disks that run short while a model is tried: nobody's fault, tried again, never for ever."""

from __future__ import annotations

import errno
import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from edge_agent.serving import offers, slots
from edge_agent.serving.health import note_failure
from edge_agent.serving.policy import Finding
from edge_agent.serving.trial import barred as barred_module
from edge_agent.serving.trial.barred import barred
from edge_agent.serving.trial.ending import Trial
from edge_agent.serving.trial.shortage import is_news, named
from tests.edge_agent.serving.stage.files import file_bytes, outputs_of
from tests.edge_agent.serving.stage.sides import FAILING, TOPICS
from wire.messages.manifest import Measured
from wire.messages.rollout import Found, ModelReport
from wire.pieces.chunks import encode_chunk


@pytest.fixture
def killed(one, monkeypatch):
    """Returns a side whose probes are killed from outside while `module` says so."""
    monkeypatch.setenv("BITFLEET_TEST_DIES", "float-32")
    monkeypatch.setenv("BITFLEET_TEST_DEATH", "SIGKILL")
    one.serving.probe.module = FAILING
    return one


def probes(one):
    """Returns a list that grows by the time of each probe."""
    began, real = [], one.serving.probe.start

    def start(header, now_s):
        began.append(now_s)
        real(header, now_s)

    one.serving.probe.start = start
    return began


def test_a_probe_that_was_killed_is_tried_again_later(killed):
    began = probes(killed)
    killed.offer(killed.publisher.manifest(2, {"float-32": file_bytes(3)}))
    killed.wait(lambda: len(began) == 2)
    assert began[1] - began[0] >= 30
    killed.serving.probe.stop()
    killed.serving.probe.module = None
    assert killed.until("healthy", version=2).active == 2


def test_killed_again_and_again_is_a_refusal_that_goes_by(killed):
    began = probes(killed)
    report = killed.bring(killed.publisher.manifest(2, {"float-32": file_bytes(3)}))
    assert (report.phase, report.code, killed.live, len(began)) == ("refused", "E-MEMORY", 1, 4)
    findings = killed.models / "findings.json"
    assert not findings.exists() or "E-MEMORY" not in findings.read_text()
    killed.serving.probe.module = None
    killed.now_s += offers._AGAIN_S
    assert killed.until("healthy", version=2).active == 2


def test_a_board_too_small_says_so_once_and_is_taken_when_there_is_room(one):
    free = iter(range(1000, 9000, 7))
    one.serving.free_memory_bytes = lambda: next(free)
    needs = Measured("lab", accuracy=0.9, memory_bytes=50_000)
    made = one.publisher.manifest(2, {"float-32": file_bytes(3)}, edit=lambda v: replace(v, measured=needs))
    report = one.bring(made)
    assert (report.phase, report.code) == ("refused", "E-MEMORY")
    assert "it needs 50000 bytes of memory, at most 1" in report.reason
    said, ends_s = len(one.reports), one.now_s + 10 * offers._AGAIN_S
    one.wait(lambda: one.now_s > ends_s)
    assert next(free) > 1000 + 10 * 7  # it looked each time
    assert one.reports[said:] == []
    one.serving.free_memory_bytes = lambda: None  # the probe of these tests would limit this very process
    assert one.until("healthy", version=2).active == 2


def test_how_much_is_free_is_no_news_and_all_else_is():
    short = Found("int8-8", False, "it needs 9000 bytes of memory, at most 10")
    said = ModelReport("refused", 2, code="E-MEMORY", reason="int8-8: at most 10", found=(short,))
    less = replace(said, reason="int8-8: at most 9", found=(replace(short, why=short.why.replace("10", "9")),))
    assert is_news(said, None)
    assert not is_news(less, said)
    assert is_news(replace(less, phase="fetching", code=""), said)
    assert is_news(replace(less, offered=3), said)
    assert is_news(replace(less, found=(replace(short, why="it needs 8000 bytes of memory, at most 9"),)), said)
    assert is_news(replace(said, code="E-DISK", reason="other"), replace(said, code="E-DISK"))


def test_after_a_restart_it_is_tried_anew(killed):
    killed.bring(killed.publisher.manifest(2, {"float-32": file_bytes(3)}))
    killed.start()
    assert killed.until("healthy", version=2).active == 2


def test_a_smaller_variant_is_taken_when_memory_is_short_for_the_best(killed):
    best = {"float-32": 0.95, "int8-4": 0.9}
    files = {"float-32": file_bytes(3), "int8-4": file_bytes(4)}
    report = killed.bring(
        killed.publisher.manifest(2, files, edit=lambda v: replace(v, measured=Measured("lab", accuracy=best[v.name])))
    )
    assert (report.phase, report.variant, killed.live) == ("healthy", "int8-4", 2)
    assert list(json.loads((killed.models / "findings.json").read_text())["by"]) == ["int8-4"]


def test_where_one_variant_is_broken_and_memory_is_short_for_the_other_the_refusal_goes_by(killed):
    best = {"int8-4": 0.95, "float-32": 0.9}
    files = {"int8-4": file_bytes(7), "float-32": file_bytes(3)}
    report = killed.bring(
        killed.publisher.manifest(
            2,
            files,
            answers=dict.fromkeys(files, outputs_of(file_bytes(3))),
            edit=lambda v: replace(v, measured=Measured("lab", accuracy=best[v.name])),
        )
    )
    assert (report.phase, report.code) == ("refused", "E-MEMORY")
    assert "E-MODEL-GOLDEN" in report.reason


@pytest.mark.parametrize(
    ("code", "reason", "right"),
    [
        ("E-MODEL-LOAD", "it takes more memory than is free", "E-MEMORY"),
        ("E-MODEL-LOAD", "the runtime does not load it: MemoryError: std::bad_alloc", "E-MEMORY"),
        ("E-MODEL-LOAD", "it does not run: RuntimeException: Failed to allocate memory for ...", "E-MEMORY"),
        ("E-MODEL-LOAD", "the runtime does not load it: Fail: no such operator", "E-MODEL-LOAD"),
        ("E-MODEL-GRAPH", "a name like bad_alloc", "E-MODEL-GRAPH"),
        ("", "", ""),
    ],
)
def test_a_shortage_goes_by_its_own_code(code, reason, right):
    assert named(Finding(code=code, reason=reason)).code == right


@pytest.mark.parametrize("lasts", [True, False])
def test_a_kill_in_the_health_window_is_tried_again_and_bars_nothing(one, monkeypatch, lasts):
    monkeypatch.setenv("BITFLEET_TEST_DIES", "float-32")
    monkeypatch.setenv("BITFLEET_TEST_DEATH", "SIGKILL")
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    one.until("active", version=2)
    one.serving.probe.module, began = FAILING, probes(one)
    if not lasts:
        one.wait(lambda: len(began) == 2)
        one.serving.probe.stop()
        one.serving.probe.module = None
        assert one.until("healthy", version=2).active == 2
        return
    report = one.until("rolled-back", "healthy", version=2)
    assert (report.code, one.live, len(began), barred(one.models)) == ("E-MEMORY", 1, 4, ())
    one.serving.probe.module, ended_s = None, one.now_s
    assert one.until("healthy", version=2).active == 2
    assert one.now_s - ended_s >= offers._AGAIN_S - 1


def test_pieces_of_another_size_cost_nothing(one):
    made = one.publisher.manifest(2, {"float-32": file_bytes(3)})
    real, sent = one.answer, Counter()

    def answer(ask):
        sent[ask.what, ask.digest] += 1
        one.link.publish(TOPICS.blob(ask.digest), encode_chunk(ask.digest, 999_999, 0, b"x" * 10))
        real(ask)

    one.answer = answer
    report = one.bring(made)
    assert (report.phase, one.live) == ("healthy", 2)
    assert set(sent.values()) == {1}


def test_a_blob_of_another_size_ends_with_a_refusal_that_goes_by(one):
    made = one.publisher.manifest(2, {"float-32": file_bytes(3)})
    digest = made.variants[0].digest
    one.spoil[digest] = one.publisher.blobs[digest] * 2
    report = one.bring(made)
    assert (report.phase, report.code, one.live) == ("refused", "E-BLOB", 1)
    one.spoil.clear()
    one.now_s += offers._AGAIN_S
    assert one.until("healthy", version=2).active == 2


@pytest.fixture
def full(monkeypatch):
    """Returns a function that fills the disk, as far as the slots are concerned, or with False makes room."""
    real = slots.write_whole

    def fails(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fill(is_full=True):
        for module in (slots, barred_module):
            monkeypatch.setattr(module, "write_whole", fails if is_full else real)

    return fill


@pytest.mark.parametrize("fails", [True, False])
def test_on_a_full_disk_the_verdict_waits_without_haste_and_is_said(one, monkeypatch, full, fails):
    made = one.publisher.manifest(2, {"float-32": file_bytes(3)})
    one.offer(made)
    one.until("active", version=2)
    began, written, real = probes(one), [], Trial.write_down
    monkeypatch.setattr(Trial, "write_down", lambda *args: (written.append(one.now_s), real(*args))[1])
    full()
    if fails:
        note_failure(one.models, made.variants[0].digest, "E-MODEL-NAN", "an answer is not finite")
    assert one.until("active", version=2).code == "E-DISK-SPACE"
    ends_s = one.now_s + 60
    one.wait(lambda: one.now_s > ends_s)
    assert len(began) == (0 if fails else 1)
    assert 4 <= len(written) <= 8
    assert min(after - before for before, after in pairwise(written)) >= 10
    full(False)
    report = one.until("rolled-back", "healthy", version=2)
    assert (report.phase, one.live) == (("rolled-back", 1) if fails else ("healthy", 2))


def test_due_is_the_end_of_the_rest(one, full):
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    one.until("active", version=2)
    full()
    one.wait(lambda: one.serving.trial.trouble[0])
    assert 9 <= one.serving.due_s(one.now_s) <= 10


def test_what_the_application_notes_while_the_disk_is_full_still_counts(one, full):
    made = one.publisher.manifest(2, {"float-32": file_bytes(3)})
    one.offer(made)
    one.until("active", version=2)
    full()
    one.wait(lambda: one.serving.trial.trouble[0])
    note_failure(one.models, made.variants[0].digest, "E-MODEL-NAN", "an answer is not finite")
    full(False)
    assert one.until("rolled-back", "healthy", version=2).phase == "rolled-back"


def test_the_store_is_emptied_before_the_pointer_is_written(one, monkeypatch, full):
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    one.until("active", version=2)
    ballast = one.models / "store" / ("f" * 64)
    ballast.write_bytes(b"of a roll-out that nobody remembers")
    real = Trial.write_down
    monkeypatch.setattr(Trial, "write_down", lambda *args: (full(ballast.exists()), real(*args))[1])
    assert one.until("healthy", version=2).active == 2


def test_an_agent_that_starts_on_a_full_disk_goes_on_with_the_trial(one, full):
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    one.until("active", version=2)
    full()
    one.start()
    assert one.until("active", version=2).active == 2
    full(False)
    assert one.until("healthy", version=2).active == 2
