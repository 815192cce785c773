"""The health window, restarts, trouble with the disk and the link, and what a person does meanwhile."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_agent.config import DataConfig, ModelConfig
from edge_agent.serving import offers, slots
from edge_agent.serving.health import note_failure
from edge_agent.serving.probe import CHILD
from edge_agent.serving.slots import read_pointer, read_slot
from tests.edge_agent.serving.stage.files import INPUT, file_bytes, outputs_of
from tests.edge_agent.serving.stage.sides import FAILING, TOPICS
from wire.messages.manifest import Measured
from wire.messages.rollout import encode_offer


def test_what_the_application_notes_in_the_window_rolls_back(one):
    manifest = one.publisher.manifest(2, {"float-32": file_bytes(3)})
    one.offer(manifest)
    one.until("active", version=2)
    assert one.live == 2
    note_failure(one.models, manifest.variants[0].digest, "E-MODEL-NAN", "an answer is not finite")
    report = one.until("rolled-back")
    assert (report.code, report.active, report.healthy, one.live) == ("E-MODEL-HEALTH", 1, 1, 1)
    assert "an answer is not finite" in report.reason


def test_what_was_noted_of_another_model_is_nobodys_fault(one):
    note_failure(one.models, "0" * 64, "E-MODEL-NAN", "old")
    assert one.bring(one.publisher.manifest(2, {"float-32": file_bytes(3)})).phase == "healthy"


def test_what_fails_the_second_probe_rolls_back(one, monkeypatch):
    monkeypatch.setenv("BITFLEET_TEST_DIES", "float-32")
    monkeypatch.setenv("BITFLEET_TEST_DEATH", "SIGSEGV")
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    one.until("active", version=2)
    one.serving.probe.module = FAILING
    report = one.until("rolled-back")
    assert (report.code, one.live) == ("E-MODEL-CRASH", 1)


def test_the_same_offer_again_is_not_tried_again(one):
    bad = one.publisher.manifest(2, {"float-32": file_bytes(7)}, answers={"float-32": outputs_of(file_bytes())})
    one.bring(bad)
    asked = len(one.asked)
    one.start()
    report = one.until("refused", version=2)
    assert (report.code, len(one.asked)) == ("E-MODEL-GOLDEN", asked)
    one.changes["model"] = ModelConfig(health_s=1.0)
    one.start()
    one.until("fetching", "checking")
    assert one.until("refused").code == "E-MODEL-GOLDEN"


@pytest.mark.parametrize("phase", ["fetching", "checking", "staged", "active", "healthy"])
def test_an_agent_that_is_gone_at_any_phase_goes_on_where_it_was(one, phase):
    manifest = one.publisher.manifest(2, {"float-32": file_bytes(3, width=200)})
    one.offer(manifest)
    one.until(phase, version=2)
    one.serving.probe.stop()
    asked = one.asked.count(manifest.variants[0].digest)
    one.start()
    assert one.live in (1, 2)
    report = one.until("healthy", version=2)
    assert (report.active, one.live) == (2, 2)
    if phase != "fetching":
        assert one.asked.count(manifest.variants[0].digest) == asked, "what was here is not fetched again"


def test_a_restart_while_it_serves_on_trial_counts(one):
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    one.until("active", version=2)
    for _ in range(3):
        one.start()
    report = one.until("rolled-back")
    assert (report.code, report.offered, one.live) == ("E-MODEL-HEALTH", 2, 1)


def test_training_goes_before_probing(one):
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    real = one.serving.step
    one.serving.step = lambda now_s, training: real(now_s, True)
    for _ in range(400):
        one.turn()
        assert not one.serving.probe.busy
    one.serving.step = real
    assert one.until("healthy", version=2).active == 2


def test_training_that_never_ends_does_not_keep_a_model_out_for_ever(one):
    one.serving.probe.module = CHILD
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    one.until("checking")
    real = one.serving.step
    for _ in range(5):
        one.serving.step = lambda now_s, training: real(now_s, True)
        one.turn()
        one.serving.step = real
        one.turn()
    one.serving.step = lambda now_s, training: real(now_s, True)
    assert one.until("active", version=2).active == 2


def test_a_blob_that_is_always_wrong_ends_and_is_tried_later(one):
    manifest = one.publisher.manifest(2, {"float-32": file_bytes(3)})
    one.spoil[manifest.variants[0].digest] = b"x" * manifest.variants[0].size
    report = one.bring(manifest)
    assert (report.phase, report.code, one.live) == ("refused", "E-BLOB", 1)
    one.spoil.clear()
    one.now_s += offers._AGAIN_S
    assert one.until("healthy", version=2).active == 2


def test_a_full_disk_is_named_and_tried_later(one, monkeypatch):
    full = one.agent.config.limits
    one.changes["limits"] = replace(full, min_free_disk_mb=1e12)
    one.start()
    report = one.bring(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    assert (report.phase, report.code, one.live) == ("refused", "E-DISK-SPACE", 1)
    one.changes["limits"] = full
    one.start()
    assert one.until("healthy", version=2).active == 2


def test_a_first_offer_to_a_full_disk_is_refused_and_tried_later(side, monkeypatch):
    one, make = side(), Path.mkdir

    def full(path, *args, **words):
        if "models" in path.parts:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        make(path, *args, **words)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "mkdir", full)
        report = one.bring(one.publisher.manifest(1, {"float-32": file_bytes()}))
        assert (report.phase, report.code, one.live) == ("refused", "E-DISK-SPACE", 0)
        assert "No space left on device" in report.reason
        one.now_s += offers._AGAIN_S
        one.turn()
        assert (one.last.code, one.models.exists()) == ("E-DISK-SPACE", False)
    one.now_s += offers._AGAIN_S
    assert one.until("healthy", version=1).active == 1


def test_an_offer_that_is_withdrawn_while_it_is_fetched(one):
    manifest = one.publisher.manifest(2, {"float-32": file_bytes(3)})
    one.spoil[manifest.variants[0].digest] = b""
    one.offer(manifest)
    one.until("fetching", version=2)
    one.link.publish(TOPICS.device("dev-1", "offer"), b"", retain=True)
    report = one.until("healthy")
    assert (report.offered, one.live, one.serving.installation) == (1, 1, None)


def test_a_newer_offer_takes_the_place_of_one_under_way_and_waits_for_one_on_trial(one):
    second, third = (one.publisher.manifest(at, {"float-32": file_bytes(at)}) for at in (2, 3))
    one.offer(second)
    one.until("active", version=2)
    one.offer(third)
    one.until("healthy", version=2)
    assert one.until("healthy", version=3).active == 3
    assert {slot.version for name in "ab" if (slot := read_slot(one.models, name))} == {2, 3}


def test_nothing_is_kept_that_nothing_needs(one):
    for version in range(2, 5):
        one.bring(one.publisher.manifest(version, {"float-32": file_bytes(version)}))
    names = {path.name for path in (one.models / "store").iterdir()}
    serving = read_slot(one.models, read_pointer(one.models).serving)
    assert serving.facts["manifest"] in names
    assert len(names) == 2


def test_a_model_that_does_badly_on_the_devices_own_examples_is_a_failure_and_no_matter_of_policy(side, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    x = np.random.default_rng(5).normal(size=(200, *INPUT)).astype(np.float32)
    y = (outputs_of(file_bytes(4), x).argmax(1) + 1) % 3
    np.savez(folder / "a.npz", x=x, y=y)
    own = DataConfig("digits", folder=folder, held_out=0.5)
    one = side(data=own, model=ModelConfig(health_s=0.0, min_accuracy=0.8))
    report = one.bring(one.publisher.manifest(1, {"int8-4": file_bytes(4)}))
    assert (report.phase, report.code, one.live) == ("refused", "E-MODEL-ACCURACY", 0)
    assert "accuracy 0.0000 on" in report.reason and "of this device, at least 0.8000" in report.reason


def test_garbage_offers_change_nothing(one):
    one.link.publish(TOPICS.device("dev-1", "offer"), b"garbage")
    for _ in range(10):
        one.turn()
    assert (one.live, one.serving.installation) == (1, None)
    assert one.agent.trouble[0] == "E-FRAME"


def test_bench_measures_all_that_is_offered(side):
    one = side()
    best = {"int8-8": 0.95, "int8-4": 0.9}
    files = {"int8-8": file_bytes(3), "int8-4": file_bytes(4)}
    one.bring(
        one.publisher.manifest(1, files, edit=lambda v: replace(v, measured=Measured("lab", accuracy=best[v.name])))
    )
    assert [found.variant for found in one.last.found if found.latency_ms] == ["int8-8"]
    (one.models / "bench.wish").touch()
    report = one.until("healthy")
    assert [found.variant for found in report.found if found.latency_ms] == ["int8-8", "int8-4"]
    assert (report.variant, one.live) == ("int8-8", 1)
    assert not (one.models / "bench.wish").exists()


def test_the_devices_own_examples_choose_another_variant_than_the_manifest(side, tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    x = np.random.default_rng(5).normal(size=(200, *INPUT)).astype(np.float32)
    np.savez(folder / "a.npz", x=x, y=outputs_of(file_bytes(4), x).argmax(1))
    one = side(data=DataConfig("digits", folder=folder, held_out=0.5))
    best = {"int8-8": 0.95, "int8-4": 0.9}
    files = {"int8-8": file_bytes(3), "int8-4": file_bytes(4)}
    report = one.bring(
        one.publisher.manifest(1, files, edit=lambda v: replace(v, measured=Measured("lab", accuracy=best[v.name])))
    )
    assert report.variant == "int8-4"
    assert "accuracy 1.0000 on" in report.why
    assert "of this device" in report.why


def test_an_offer_to_another_device_is_refused(one):
    made = one.publisher.manifest(2, {"float-32": file_bytes(3)})
    copied = encode_offer(replace(one.publisher.offer(made), device="dev-2"))
    one.link.publish(TOPICS.device("dev-1", "offer"), copied, retain=True)
    for _ in range(10):
        one.turn()
    assert (one.live, one.serving.offer.version, one.serving.installation) == (1, 1, None)
    assert one.agent.trouble[0] == "E-SIGNATURE"


def test_a_persons_way_back_ends_the_trial(one):
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    one.until("active", version=2)
    slots.go_back(one.models)
    report = one.until("rolled-back")
    assert (report.active, report.healthy, one.live, one.serving.watch) == (1, 1, 1, None)
