"""The loop among scripted devices: who gets what when, what is withdrawn, what people wish, what travels."""

from __future__ import annotations

import pytest

from coordinator.rollout.book import RolloutBook
from coordinator.rollout.shown import facts_of
from tests.coordinator.rollout.boards import TOPICS
from wire.errors import StateError, TransportError
from wire.messages.reports import DeviceState, encode_state
from wire.messages.rollout import ModelReport, encode_model_report
from wire.transport import Down, Unsent, Up


def stages(made):
    return [line["stage"] for line in made.noted("rollout") if "stage" in line]


def test_healthy_devices_all_get_it_stage_by_stage(scene):
    made = scene(*["healthy"] * 7)
    assert made.run() == "done"
    assert set(made.outcomes().values()) == {"healthy"}
    offered = [line["device"] for line in made.noted("offer")]
    assert offered == [f"dev-{at}" for at in range(7)]
    assert stages(made) == ["third", "all", "all"]
    assert made.offered() == set(made.boards)  # who has it keeps the offer
    for board in made.boards.values():
        assert board.manifest.version == 1
        assert {board.offers[0].manifest, board.manifest.golden, board.manifest.variants[1].digest} == set(board.got)


def test_one_copy_serves_all_and_bytes_are_counted(scene):
    made = scene(*["healthy"] * 7)
    made.run()
    facts = facts_of(RolloutBook(made.home.database), made.name)
    assert (facts["status"], facts["healthy"], facts["of"], facts["bits"]) == ("done", 7, 7, {"4": 7})
    whole = sum(len(data) for data in made.boards["dev-0"].got.values())
    assert facts["bytes_down"] >= 7 * whole
    assert facts["bytes_up"] > 0
    assert len(list(made.home.shelf.iterdir())) == 5  # manifest, golden, three variants


def test_a_broken_model_stops_at_the_canary_and_goes_no_further(scene):
    made = scene(*["refusing"] * 6)
    assert made.run() == "held"
    assert made.offered() == {"dev-0"}
    assert made.desk.rollout.reason == "failed: dev-0 (E-MODEL-GOLDEN)"


@pytest.mark.parametrize("script", ["refusing", "rolling back", "flapping"])
def test_a_model_that_fails_in_the_second_stage_is_stopped(scene, script):
    made = scene("healthy", "healthy", script, "healthy", "healthy", "healthy", "healthy")
    assert made.run() == "stopped"
    assert made.offered() == {"dev-0", "dev-1"}
    assert [line["status"] for line in made.noted("rollout")][-1] == "stopped"
    assert "dev-2" in made.desk.rollout.reason


def test_the_unfit_are_named_and_in_nobodys_way(scene):
    made = scene("unfit", "healthy", "unfit", "healthy")
    assert made.run() == "done"
    assert made.outcomes() == {"dev-0": "unfit", "dev-1": "healthy", "dev-2": "unfit", "dev-3": "healthy"}
    row = facts_of(RolloutBook(made.home.database), made.name)["devices"][0]
    assert (row["outcome"], row["code"], row["phase"]) == ("unfit", "E-MODEL-POLICY", "refused")


def test_the_silent_are_late_named_and_not_failed(scene):
    made = scene("healthy", "silent", "healthy")
    assert made.run(stage_s=100.0) == "held"
    assert made.desk.rollout.reason == "no end within 100 s: dev-1 (late, silent)"
    assert made.outcomes() == {"dev-0": "healthy", "dev-1": "late", "dev-2": "healthy"}


def test_who_is_late_can_be_left_behind_and_keeps_its_offer(scene):
    made = scene("healthy", "silent", "stuck", "healthy")
    assert made.run(stage_s=100.0, without=("late",)) == "done"
    assert made.outcomes() == {"dev-0": "healthy", "dev-1": "late", "dev-2": "late", "dev-3": "healthy"}
    made.settle()
    assert made.offered() == set(made.boards)


def test_pause_resume_and_abort_come_from_another_process(scene):
    made = scene("stuck", "healthy", "healthy")
    made.start()
    made.open()
    made.settle()
    made.wish("pause")
    made.settle()
    assert (made.desk.rollout.status, made.host.through_with(made.name)) == ("paused", False)
    version = made.desk.rollout.version
    made.boards["dev-0"].say(ModelReport("healthy", version, version, version, version))
    made.settle()
    assert made.offered() == {"dev-0"}
    made.wish("resume")
    made.settle()
    assert made.desk.rollout.status == "done"
    assert [line["wish"] for line in made.noted("wish")] == ["pause", "resume"]
    assert RolloutBook(made.home.database).pending_wish(made.name) == ""


def test_abort_withdraws_from_who_has_not_begun(scene):
    made = scene("healthy", "stuck", "silent", "healthy", "healthy", "healthy")
    made.start()
    made.open()
    made.settle()
    made.boards["dev-1"].say(ModelReport("staged", 1, 1))
    made.settle()
    assert made.offered() == {"dev-0", "dev-1"}
    made.wish("abort")
    assert made.finish() == "aborted"
    assert made.offered() == {"dev-0", "dev-1"}  # one has it, one is about to switch
    made = scene("stuck", "healthy")
    made.start()
    made.open()
    made.settle()
    made.wish("abort")
    assert made.finish() == "aborted"
    assert made.offered() == set()


def test_a_damaged_shelf_stops_a_roll_out_but_not_its_abort(scene):
    made = scene("silent", "healthy")
    made.start()
    made.open()
    made.settle()
    (made.home.shelf / made.desk.offer.manifest).write_bytes(b"rotten")
    made.open()
    with pytest.raises(StateError, match="holds other bytes"):
        made.finish()
    made.wish("abort")
    made.open()
    assert (made.finish(), made.offered()) == ("aborted", set())


def test_offers_are_said_again_over_a_new_link_and_to_a_broker_that_forgot(scene):
    made = scene("silent", "healthy")
    made.start()
    made.open()
    made.settle()
    made.hub.retained.clear()
    made.host.post.transport.inbox.append(Down("gone"))
    made.settle()
    assert made.offered() == set()
    made.host.post.transport.inbox.append(Up(65536))
    made.settle()
    assert made.offered() == {"dev-0"}


def test_an_offer_that_the_broker_does_not_take_is_said_again(scene):
    made = scene("silent")
    made.start()
    host = made.open()
    host.step(0.0)
    (token,) = made.desk.telling
    made.hub.retained.clear()
    host.post.transport.inbox.clear()
    host.post.transport.inbox.append(Unsent(token, "x", 0x97, "Quota exceeded"))
    made.settle()
    assert made.offered() == {"dev-0"}


def test_an_old_acl_is_said_in_words(scene):
    made = scene("silent")
    made.start()
    made.open().post.transport.inbox.append(Unsent(0, "fl/1/test/d/+/model", 0x87, "Not authorized"))
    with pytest.raises(TransportError, match="ACL"):
        made.settle()


def test_withdrawals_of_a_roll_out_before_are_made_up_for(scene):
    made = scene("stuck", "stuck", "healthy")
    made.start(devices=("dev-0",))
    made.open()
    made.settle()
    made.wish("abort")
    made.host.post.transport.inbox.append(Down("gone"))
    made.settle()
    assert (made.desk.rollout.status, made.host.through_with(made.name)) == ("aborted", False)
    assert made.offered() == {"dev-0"}
    assert made.run(devices=("dev-2",)) == "done"
    made.settle()
    assert made.offered() == {"dev-2"}
    assert RolloutBook(made.home.database).withdrawals("test") == []


def test_a_newer_offer_is_not_withdrawn_for_an_older_one(scene):
    made = scene("stuck")
    made.start()
    made.open()
    made.settle()
    made.wish("abort")
    made.host.post.transport.inbox.append(Down("gone"))
    made.settle()
    made.start()
    made.open()
    made.settle()
    assert made.offered() == {"dev-0"}
    assert made.boards["dev-0"].offers[-1].version == 2


def test_devices_of_the_registry_in_order_with_the_canary_first(scene):
    made = scene("healthy", "healthy", "healthy")
    made.start(devices=("dev-0",))
    made.open()
    for device in ("b", "a", "c"):
        made.hub.route(TOPICS.device(device, "state"), encode_state(DeviceState("ready", 1)), True)
    assert made.finish() == "done"
    name = made.start(devices=(), canary="c")
    members = RolloutBook(made.home.database).load(name).members
    assert [member.device for member in members] == ["c", "a", "b"]


def test_a_device_that_is_pinned_says_so_before_it_is_offered_anything(scene):
    made = scene("silent", "healthy", "silent")
    pinned = encode_model_report(ModelReport("pinned", 7, 7, 7, 7))
    for device in ("dev-0", "dev-2", "stranger"):
        made.hub.route(TOPICS.device(device, "model"), pinned, True)
    assert made.run() == "done"
    assert made.outcomes() == {"dev-0": "pinned", "dev-1": "healthy", "dev-2": "pinned"}
    assert set(made.desk.pinned) == {"dev-0", "dev-2"}


def test_a_device_that_said_it_is_healthy_before_the_roll_out_is_believed_only_of_this_version(scene):
    made = scene("silent", "silent")
    early = encode_model_report(ModelReport("healthy", 7, 7, 7, 7))
    made.hub.route(TOPICS.device("dev-0", "model"), early, True)
    made.start()
    made.open()
    made.settle()
    assert made.outcomes() == {"dev-0": "", "dev-1": ""}
