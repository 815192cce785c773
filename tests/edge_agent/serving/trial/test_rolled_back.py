"""What was rolled back here, by hand or by its health, does not come back, whatever is asked, offered or set."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.config import ModelConfig
from edge_agent.serving import offers, slots
from edge_agent.serving.commands import pin_version, roll_back
from edge_agent.serving.health import note_failure
from edge_agent.serving.slots import read_pointer, read_slot
from edge_agent.serving.trial import measuring
from edge_agent.serving.trial.barred import barred
from tests.edge_agent.serving.stage.files import file_bytes
from tests.edge_agent.serving.stage.held import rot
from tests.edge_agent.serving.stage.sides import HEALTH_S
from wire.messages.manifest import Measured


def by_hand(one, manifest):
    one.bring(manifest)
    roll_back(one.serving.config)


def by_health(one, manifest):
    one.offer(manifest)
    one.until("active", version=manifest.version)
    note_failure(one.models, manifest.variants[0].digest, "E-MODEL-NAN", "an answer is not finite")
    assert one.until("rolled-back").code == "E-MODEL-HEALTH"


@pytest.fixture(params=[by_hand, by_health])
def back(one, request):
    """Returns a side whose device went back from version 2 to 1."""
    request.param(one, one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    for _ in range(20):
        one.turn()
    assert (one.last.phase, one.live) == ("rolled-back", 1)
    return one


def seen_serving(one, turns=200):
    """Returns all the versions that an application could find meanwhile."""
    seen = set()
    for _ in range(turns):
        one.turn()
        seen.add(one.live)
    return seen


def test_bench_measures_it_and_does_not_put_it_back(back):
    code, reason = back.last.code, back.last.reason
    (back.models / measuring.WISH).touch()
    report = back.until("rolled-back", version=2)
    assert (report.code, report.reason) == (code, reason)
    assert [found.latency_ms is not None for found in report.found] == [True]
    assert seen_serving(back) == {1}


def test_other_settings_do_not_put_it_back(back):
    asked = len(back.asked)
    back.changes["model"] = ModelConfig(health_s=HEALTH_S + 1)
    back.start()
    assert seen_serving(back) == {1}
    assert (back.last.phase, back.last.offered, len(back.asked)) == ("rolled-back", 2, asked)


def test_another_offer_between_does_not_put_it_back(back):
    second = back.publisher.manifest(2, {"float-32": file_bytes(3)})
    older = back.publisher.manifest(1, {"float-32": file_bytes()}, content="1" * 64)
    assert back.bring(older).code == "E-VERSION-FLOOR"
    back.offer(second)
    report = back.until("rolled-back", version=2)
    assert report.reason == "it was rolled back here before"
    assert seen_serving(back) == {1}


def test_the_next_version_is_taken(back):
    assert back.bring(back.publisher.manifest(3, {"float-32": file_bytes(5)})).phase == "healthy"
    assert back.live == 3


def test_no_variant_of_it_is_staged(side):
    one, files = side(), {"int8-8": file_bytes(3), "int8-4": file_bytes(4)}
    one.bring(one.publisher.manifest(1, {"float-32": file_bytes()}))
    best = {"int8-8": 0.95, "int8-4": 0.9}
    made = one.publisher.manifest(2, files, edit=lambda v: replace(v, measured=Measured("lab", accuracy=best[v.name])))
    by_health(one, made)
    one.changes["model"] = ModelConfig(health_s=HEALTH_S, max_bytes=made.variants[1].size)
    one.start()
    (one.models / measuring.WISH).touch()
    assert seen_serving(one) == {1}


@pytest.fixture
def two(side):
    """Returns a side that serves int8-8 of version 1 and, under settings that allow float only, tries float-32."""
    one, files = side(), {"float-32": file_bytes(3), "int8-8": file_bytes(4)}
    best = {"float-32": 0.9, "int8-8": 0.95}
    made = one.publisher.manifest(1, files, edit=lambda v: replace(v, measured=Measured("lab", accuracy=best[v.name])))
    assert one.bring(made).variant == "int8-8"
    one.changes["model"] = ModelConfig(health_s=HEALTH_S, profiles=("float",))
    one.start()
    assert one.until("active", version=1).variant == "float-32"
    return one, made


def test_a_variant_that_goes_back_to_another_of_its_manifest_is_barred_alone(two):
    one, made = two
    note_failure(one.models, made.variants[0].digest, "E-MODEL-NAN", "an answer is not finite")
    assert one.until("rolled-back").active == 1
    assert barred(one.models) == (f"{one.publisher.offer(made).manifest}/float-32",)
    one.wait(lambda: one.last.phase == "refused")  # by the settings it should not serve; what may was rolled back
    report = one.last
    assert (report.code, report.active, report.healthy, report.variant) == ("E-MODEL-HEALTH", 1, 1, "int8-8")
    assert "it was rolled back here before" in report.reason
    one.publisher.blobs.clear()  # all that it needs is here
    one.changes["model"] = ModelConfig(health_s=HEALTH_S)
    one.start()
    report = one.until("healthy", version=1)
    assert (report.variant, report.active, report.healthy) == ("int8-8", 1, 1)
    one.changes["model"] = ModelConfig(health_s=HEALTH_S, profiles=("float",))
    one.start()
    assert one.until("refused").code == "E-MODEL-HEALTH"


def test_a_variant_that_ends_the_agent_again_and_again_is_barred_alone(two):
    one, made = two
    for _ in range(3):
        one.serving.probe.stop()
        one.start()
    report = one.until("rolled-back")
    assert (report.code, report.variant) == ("E-MODEL-HEALTH", "int8-8")
    assert barred(one.models) == (f"{one.publisher.offer(made).manifest}/float-32",)
    assert one.until("refused").code == "E-MODEL-HEALTH"


def test_a_list_that_cannot_be_read_lets_nothing_in_and_says_so(one):
    (one.models / "rolled-back.json").write_text("{")
    report = one.bring(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    assert (report.phase, report.code, one.live) == ("refused", "E-STATE", 1)
    (one.models / "rolled-back.json").unlink()
    one.now_s += offers._AGAIN_S
    assert one.until("healthy", version=2).active == 2


def test_a_person_may_pin_it(one):
    by_hand(one, one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    assert barred(one.models)
    pin_version(one.serving.config, 2)
    assert one.until("pinned").active == 2
    assert barred(one.models) == ()
    pin_version(one.serving.config, 0)
    assert seen_serving(one) == {2}


def test_a_pin_while_the_same_file_is_on_trial_ends_the_trial(one):
    made = one.publisher.manifest(2, {"float-32": file_bytes()})
    one.offer(made)
    one.until("active", version=2)
    pin_version(one.serving.config, 1)
    note_failure(one.models, made.variants[0].digest, "E-MODEL-NAN", "an answer is not finite")
    for _ in range(60):
        one.turn()
    assert (one.live, read_pointer(one.models).pinned, one.serving.watch) == (1, 1, None)
    assert barred(one.models) == ()


@pytest.mark.parametrize("fails", [True, False])
def test_a_pin_between_the_verdict_and_its_writing_stands(one, monkeypatch, fails):
    made = one.publisher.manifest(2, {"float-32": file_bytes()})
    one.offer(made)
    one.until("active", version=2)
    real = slots.alone

    def pinned_first(folder):
        monkeypatch.setattr("edge_agent.serving.trial.ending.alone", real)
        slots.pin(folder, 1)
        return real(folder)

    monkeypatch.setattr("edge_agent.serving.trial.ending.alone", pinned_first)
    if fails:
        note_failure(one.models, made.variants[0].digest, "E-MODEL-NAN", "an answer is not finite")
    assert one.until("pinned").active == 1
    assert (one.live, read_pointer(one.models).pinned, barred(one.models)) == (1, 1, ())
    assert one.serving.rest_s < 0, "that is no trouble"


def test_a_pin_between_staging_and_switching_stands(one, monkeypatch):
    real = slots.alone

    def pinned_first(folder):
        if one.serving.installation.phase == "staged":
            monkeypatch.setattr("edge_agent.serving.trial.placing.alone", real)
            slots.pin(folder, 1)
        return real(folder)

    monkeypatch.setattr("edge_agent.serving.trial.placing.alone", pinned_first)
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    one.until("pinned")
    assert (one.live, read_pointer(one.models).pinned) == (1, 1)


def test_a_newer_offer_goes_on_after_a_person_ended_the_trial(one):
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    one.until("active", version=2)
    one.offer(one.publisher.manifest(3, {"float-32": file_bytes(4)}))
    one.turn()
    roll_back(one.serving.config)
    assert one.until("healthy", version=3).active == 3


@pytest.mark.parametrize("emptied", [True, False])
def test_two_slots_that_were_damaged_on_trial_are_filled_again(one, emptied):
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    one.until("active", version=2)
    for name in "ab":
        rot(one.models, name)
    if emptied:
        (one.models / "b" / "facts.json").unlink()
    one.start()
    one.wait(lambda: (one.live, one.serving.report.phase, one.serving.report.healthy) == (2, "healthy", 2))
    assert barred(one.models) == ()


def test_a_slot_that_was_damaged_on_trial_is_fetched_again(one):
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    one.until("active", version=2)
    file = read_slot(one.models, read_pointer(one.models).serving).path
    file.unlink()
    file.write_bytes(b"rot")
    one.start()
    report = one.until("rolled-back", version=2)
    assert (report.code, one.live, barred(one.models)) == ("E-DISK", 1, ())
    assert one.until("healthy", version=2).active == 2
