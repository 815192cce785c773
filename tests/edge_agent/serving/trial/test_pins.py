"""What a pin holds back, and what is taken once a person lets it go."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from edge_agent import Model
from edge_agent.config import ModelConfig
from edge_agent.serving import offers, slots
from edge_agent.serving.slots import read_pointer
from edge_agent.serving.trial import placing
from tests.edge_agent.serving.stage.files import INPUTS, file_bytes
from tests.edge_agent.serving.stage.held import rot
from tests.edge_agent.serving.test_model import Shelf
from wire.errors import StateError
from wire.messages.manifest import Measured


def test_a_pinned_version_stays_whatever_is_offered(one):
    one.bring(one.publisher.manifest(2, {"float-32": file_bytes(2)}))
    slots.pin(one.models, 1)
    one.offer(one.publisher.manifest(3, {"float-32": file_bytes(3)}))
    report = one.until("pinned")
    assert (report.active, one.live, one.serving.installation) == (1, 1, None)
    slots.pin(one.models, 0)
    assert one.until("healthy", version=3).active == 3


def test_the_newest_offer_is_taken_again_after_a_pin_although_it_had_ended_well(one):
    one.bring(one.publisher.manifest(2, {"float-32": file_bytes(2)}))
    slots.pin(one.models, 1)
    assert one.until("pinned").active == 1
    slots.pin(one.models, 0)
    report = one.until("healthy", version=2)
    assert (report.active, report.healthy, one.live) == (2, 2, 2)


def test_what_stands_healthy_in_the_other_slot_serves_again_after_a_pin_with_nobody_there_to_give_it(one):
    one.bring(one.publisher.manifest(2, {"float-32": file_bytes(2)}))
    one.publisher.blobs.clear()
    slots.pin(one.models, 1)
    one.until("pinned")
    slots.pin(one.models, 0)
    at = len(one.reports)
    report = one.until("healthy", version=2)
    assert (report.active, report.healthy, one.live) == (2, 2, 2)
    assert read_pointer(one.models) == slots.Pointer("b", previous="a")
    assert not {"fetching", "checking", "active", "refused"} & {said.phase for said in one.reports[at:]}


def test_what_is_damaged_in_the_other_slot_is_fetched_again(one):
    one.bring(one.publisher.manifest(2, {"float-32": file_bytes(2)}))
    slots.pin(one.models, 1)
    one.until("pinned")
    rot(one.models, "b")
    slots.pin(one.models, 0)
    one.until("fetching", version=2)
    assert one.until("healthy", version=2).active == 2


def test_after_a_pin_other_settings_choose_anew_and_a_file_that_is_here_is_not_fetched(side):
    one, files = side(), {"int8-8": file_bytes(2), "int8-4": file_bytes(3, width=5)}
    one.bring(one.publisher.manifest(1, {"float-32": file_bytes()}))
    best = {"int8-8": 0.95, "int8-4": 0.9}
    made = one.publisher.manifest(2, files, edit=lambda v: replace(v, measured=Measured("lab", accuracy=best[v.name])))
    assert one.bring(made).variant == "int8-8"
    slots.pin(one.models, 1)
    one.changes["model"] = ModelConfig(health_s=1.0, max_latency_ms=1e6)
    one.start()
    one.until("pinned")
    asked = one.asked.count(made.variants[0].digest)
    slots.pin(one.models, 0)
    report = one.until("healthy", version=2)
    assert (report.variant, one.asked.count(made.variants[0].digest)) == ("int8-8", asked)


@pytest.mark.parametrize("when", ["idle", "on trial", "installing", "due again"])
def test_a_pin_that_was_let_go_between_two_looks_is_seen(one, when):
    made = one.publisher.manifest(2, {"float-32": file_bytes(2)})
    if when == "due again":
        one.spoil[made.variants[0].digest] = b"x" * made.variants[0].size
    one.offer(made)
    ends = {"idle": "healthy", "on trial": "active", "installing": "fetching", "due again": "refused"}[when]
    one.until(ends, version=2)
    one.spoil.clear()
    slots.pin(one.models, 1)
    slots.pin(one.models, 0)
    assert one.live == 1
    one.wait(lambda: (one.live, one.serving.report.phase, one.serving.report.healthy) == (2, "healthy", 2))


def test_an_offer_that_waits_for_a_pin_to_end_is_taken_though_its_time_came_meanwhile(one):
    made = one.publisher.manifest(2, {"float-32": file_bytes(2)})
    one.spoil[made.variants[0].digest] = b"x" * made.variants[0].size
    assert one.bring(made).code == "E-BLOB"
    one.spoil.clear()
    slots.pin(one.models, 1)
    one.until("pinned")
    one.now_s += 2 * offers._AGAIN_S
    for _ in range(60):
        one.turn()
    assert one.live == 1
    slots.pin(one.models, 0)
    assert one.until("healthy", version=2).active == 2


def test_a_model_that_was_rolled_back_while_a_pin_stands_answers_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_agent.serving.model._GRACE_S", 0.0)
    shelf = Shelf(tmp_path / "state")
    shelf.serve(1, file_bytes(1), commit=False)
    (shelf.folder / "pointer.json").write_text('{"serving": "a", "trying": true, "pinned": 7}')
    model = Model.current(shelf.state)
    for _ in range(2):
        assert not model.follow()
        assert model.predict(INPUTS).shape == (8, 3)
    slots.fall_back(shelf.folder)
    assert not model.follow()
    with pytest.raises(StateError, match=r"model 1 .* was withdrawn"):
        model.predict(INPUTS)
    slots.pin(shelf.folder, 0)
    with pytest.raises(StateError, match=r"model 1 .* was withdrawn"):
        model.predict(INPUTS)
    shelf.serve(2, file_bytes(2))
    assert model.answer(INPUTS).version == 2


def test_a_switch_whose_commit_the_disk_refused_is_watched_to_its_end(one, monkeypatch):
    one.bring(one.publisher.manifest(2, {"float-32": file_bytes(2)}))
    slots.pin(one.models, 1)
    assert one.until("pinned").active == 1
    commit, tries = placing.commit, []

    def full(*words):
        tries.append(words)
        if len(tries) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return commit(*words)

    monkeypatch.setattr(placing, "commit", full)
    slots.pin(one.models, 0)
    one.wait(lambda: (one.serving.report.phase, one.serving.report.healthy) == ("healthy", 2))
    pointer = read_pointer(one.models)
    assert (one.live, pointer.trying, len(tries)) == (2, False, 1)
