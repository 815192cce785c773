"""A roll-out that is over, and a process that stays for it: late devices, later reports, what is served to whom."""

from __future__ import annotations

import pytest

from coordinator import service
from coordinator.rollout.book import RolloutBook
from coordinator.rollout.shown import facts_of
from tests.coordinator.rollout.boards import TOPICS
from wire.messages.reports import Ask, DeviceState, encode_ask, encode_state
from wire.messages.rollout import ModelReport, encode_model_report
from wire.transport import Down, Up


@pytest.fixture
def done(scene):
    """A roll-out that went on without dev-1, which was off, and whose process is gone; another one has begun."""
    made = scene("healthy", "silent", "healthy")
    assert made.run(stage_s=100.0, without=("late",)) == "done"
    made.open()
    made.settle()
    return made


def come_back(made, device="dev-1"):
    """The device is switched on: it finds what the broker keeps for it."""
    board = made.boards[device]
    board.script = "healthy"
    made.hub.route(TOPICS.device(device, "offer"), made.hub.retained[TOPICS.device(device, "offer")], True)
    made.settle()
    return board


def rows(made):
    return {row["device"]: row for row in facts_of(RolloutBook(made.home.database), made.name)["devices"]}


def test_what_devices_said_last_is_kept_when_a_coordinator_ends(done, monkeypatch):
    monkeypatch.setattr(service, "_SETTLE_S", 0.2)
    done.hub.route(TOPICS.device("dev-0", "state"), encode_state(DeviceState("training", 1)), False)
    done.settle()
    done.hub.route(
        TOPICS.device("dev-0", "state"),
        encode_state(DeviceState("idle", 1, code="E-CONFIG", reason="no centres")),
        False,
    )
    service._settle(done.host)
    row = done.home.database.row("SELECT state, code, reason FROM devices WHERE device = 'dev-0'")
    assert tuple(row) == ("idle", "E-CONFIG", "no centres")


def test_a_late_device_takes_the_model_after_all(done):
    before = facts_of(RolloutBook(done.home.database), done.name)
    board = come_back(done)
    assert set(board.got) == {board.offers[0].manifest, board.manifest.golden, board.manifest.variants[1].digest}
    after = facts_of(RolloutBook(done.home.database), done.name)
    assert (after["status"], after["healthy"], done.outcomes()["dev-1"]) == ("done", 3, "healthy")
    assert after["bytes_down"] - before["bytes_down"] >= sum(len(data) for data in board.got.values())
    assert len([line for line in done.noted("rollout") if line.get("status") == "done"]) == 1


def test_a_device_that_goes_back_later_shows_it_and_keeps_its_outcome(done):
    done.boards["dev-2"].say(ModelReport("rolled-back", 1, 1, code="E-MODEL-HEALTH", reason="a day later"))
    done.settle()
    row = rows(done)["dev-2"]
    assert (row["outcome"], row["phase"], row["code"], row["reason"]) == (
        "left", "rolled-back", "E-MODEL-HEALTH", "a day later"
    )  # fmt: skip
    done.open()
    done.settle()
    assert rows(done)["dev-2"]["phase"] == "rolled-back"
    assert done.outcomes()["dev-2"] == "healthy"


def test_who_has_the_model_may_fetch_the_other_variants(done):
    board = done.boards["dev-0"]
    other = board.manifest.variants[0]
    board._fetch(other.digest, other.size)
    done.settle()
    assert len(board.got[other.digest]) == other.size


def test_the_offer_of_a_late_device_is_said_again_to_a_broker_that_forgot(done):
    done.hub.retained.clear()
    done.host.post.transport.inbox.extend([Down("gone"), Up(65536)])
    done.settle()
    assert done.offered() == {"dev-1"}


def test_a_newer_roll_out_takes_the_late_offer_back(done):
    done.start(devices=("dev-0",))
    done.settle()
    assert done.desk.rollout.version == 2
    assert done.offered() == {"dev-0", "dev-2"}  # dev-2 has version 1 and keeps it
    assert done.boards["dev-1"].offers[-1] is None
    assert done.outcomes() == {"dev-0": "healthy"}


@pytest.mark.parametrize("end", ["aborted", "stopped"])
def test_nothing_is_served_of_a_roll_out_that_came_to_nothing(scene, end):
    made = scene("stuck", "silent") if end == "aborted" else scene("healthy", "silent", *["rolling back"] * 5)
    made.start()
    made.open()
    made.settle()
    if end == "aborted":
        made.wish("abort")
    made.settle()
    assert made.desk.rollout.status == end
    manifest = made.desk.offer.manifest
    silent = "dev-0" if end == "aborted" else "dev-1"
    made.hub.route(TOPICS.device(silent, "ask"), encode_ask(Ask("blob", manifest, spans=((0, 10),))), False)
    made.host.step(0.0)
    made.host.step(0.0)
    assert not made.desk.source.library.wants and not made.desk.source.library.due


def test_limits_hold_after_the_end(done):
    for turn in range(450):
        report = ModelReport("staged" if turn % 2 else "fetching", 1, turn % 2)
        done.hub.route(TOPICS.device("dev-1", "model"), encode_model_report(report), False)
    for _ in range(60):
        done.hub.route(TOPICS.device("dev-2", "model"), b"garbage", False)
    done.settle()
    assert len([line for line in done.noted("device-model") if line["device"] == "dev-1"]) <= 203
    assert done.desk.refusals["dev-2", "model"] == 20
    assert done.desk.rollout.status == "done"


def test_a_device_that_left_the_model_is_not_shown_as_healthy_with_it(done):
    assert (rows(done)["dev-0"]["outcome"], facts_of(RolloutBook(done.home.database), done.name)["healthy"]) == (
        "healthy",
        2,
    )
    pinned = ModelReport("pinned", offered=1, staged=1, active=7, healthy=7)
    done.hub.route(TOPICS.device("dev-0", "model"), encode_model_report(pinned), False)
    done.settle()
    facts = facts_of(RolloutBook(done.home.database), done.name)
    assert (rows(done)["dev-0"]["outcome"], facts["healthy"], facts["status"]) == ("left", 1, "done")
    assert done.outcomes()["dev-0"] == "healthy"


def test_after_an_hour_a_device_that_talked_nonsense_is_heard_again(done):
    for _ in range(60):
        done.hub.route(TOPICS.device("dev-1", "model"), b"garbage", False)
    done.settle()
    said = encode_model_report(ModelReport("fetching", offered=done.desk.rollout.version))
    done.hub.route(TOPICS.device("dev-1", "model"), said, False)
    done.settle()
    assert rows(done)["dev-1"]["phase"] == ""
    done.clock_s += 3601
    done.settle()
    done.hub.route(TOPICS.device("dev-1", "model"), said, False)
    done.settle()
    assert rows(done)["dev-1"]["phase"] == "fetching"


@pytest.mark.parametrize("how", ["a day later", "another process"])
def test_a_process_that_stays_for_months_does_not_become_deaf_to_a_device(done, how):
    for turn in range(450):
        report = ModelReport("staged" if turn % 2 else "fetching", 1, turn % 2)
        done.hub.route(TOPICS.device("dev-1", "model"), encode_model_report(report), False)
    done.settle()
    last = encode_model_report(ModelReport("refused", 1, code="E-MODEL-NAN"))
    done.hub.route(TOPICS.device("dev-1", "model"), last, False)
    done.settle()
    assert rows(done)["dev-1"]["phase"] in ("staged", "fetching")
    if how == "a day later":
        done.clock_s += 86401
    else:
        done.open()
    done.settle()
    done.hub.route(TOPICS.device("dev-1", "model"), last, False)
    done.settle()
    assert (rows(done)["dev-1"]["phase"], done.outcomes()["dev-1"]) == ("refused", "failed")


def test_what_a_pinned_device_said_once_counts_for_the_next_roll_out_too(scene):
    made = scene("healthy", "silent")
    pinned = encode_model_report(ModelReport("pinned", 7, 7, 7, 7))
    made.hub.route(TOPICS.device("dev-1", "model"), pinned, True)
    made.run(devices=("dev-0",))
    made.start()
    made.settle()
    assert (made.desk.rollout.version, made.desk.rollout.status) == (2, "done")
    assert made.outcomes() == {"dev-0": "healthy", "dev-1": "pinned"}


def say(made, device, *reports):
    """Has a device say it, so that the broker keeps the last word."""
    for report in reports:
        made.hub.route(TOPICS.device(device, "model"), encode_model_report(report), True)
    made.settle()


def test_who_came_to_an_end_without_the_model_does_not_get_it_from_a_roll_out_that_was_aborted(scene):
    made = scene("healthy", "unfit", "healthy", "healthy", "rolling back", "healthy", "stuck")
    made.start()
    made.open()
    made.settle()
    say(made, "dev-5", ModelReport("pinned", 1, 1, 7, 7))  # healthy with it, and then its owner pinned another
    assert list(made.outcomes().values()) == ["healthy", "unfit", "healthy", "healthy", "failed", "pinned", ""]
    made.wish("abort")
    made.settle()
    assert made.desk.rollout.status == "aborted"
    assert made.offered() == {"dev-0", "dev-2", "dev-3"}
    for device in ("dev-1", "dev-4", "dev-5"):
        ask = encode_ask(Ask("blob", made.desk.offer.manifest, spans=((0, 10),)))
        made.hub.route(TOPICS.device(device, "ask"), ask, False)
    made.host.step(0.0)
    made.host.step(0.0)
    assert not made.desk.source.library.wants and not made.desk.source.library.due


def test_who_had_begun_when_it_was_aborted_and_goes_back_gets_no_other_try(scene):
    made = scene("silent", "silent")
    made.start()
    made.open()
    made.settle()
    say(made, "dev-0", ModelReport("staged", 1, 1))
    made.wish("abort")
    made.settle()
    assert made.offered() == {"dev-0"}
    say(made, "dev-0", ModelReport("rolled-back", 1, code="E-DISK", reason="a slot is damaged"))
    assert made.offered() == set()


def test_a_newer_roll_out_takes_the_offer_of_a_pinned_device_back(scene):
    made = scene("healthy", "silent")
    made.start()
    made.open()
    made.settle()
    say(made, "dev-1", ModelReport("pinned", 7, 7, 7, 7))
    assert (made.outcomes()["dev-1"], made.desk.rollout.status) == ("pinned", "done")
    assert made.offered() == {"dev-0", "dev-1"}
    made.start(devices=("dev-0",))
    made.settle()
    assert (made.desk.rollout.version, made.offered()) == (2, {"dev-0"})


def test_the_last_word_of_a_device_that_talked_nonsense_is_read_after_an_hour(done):
    for _ in range(60):
        done.hub.route(TOPICS.device("dev-1", "model"), b"garbage", False)
    done.settle()
    say(done, "dev-1", ModelReport("healthy", 1, 1, 1, 1))
    assert done.outcomes()["dev-1"] == "late"
    done.clock_s += 3601
    done.settle()
    assert done.outcomes()["dev-1"] == "healthy"


@pytest.mark.parametrize("leaf", ["state", "info"])
def test_nonsense_on_another_topic_does_not_cost_a_device_its_reports(done, leaf):
    for _ in range(60):
        done.hub.route(TOPICS.device("dev-1", leaf), b"as another version says it", False)
    done.settle()
    assert done.desk.refusals["dev-1", leaf] == 20
    say(done, "dev-1", ModelReport("healthy", 1, 1, 1, 1))
    assert done.outcomes()["dev-1"] == "healthy"


def test_a_process_without_a_roll_out_waits_for_one_and_learns_who_is_there(scene):
    made = scene("silent", "healthy")
    made.open()
    made.settle()
    assert made.host.desk is None
    for device in made.boards:
        made.hub.route(TOPICS.device(device, "state"), encode_state(DeviceState("ready", 1)), True)
    made.hub.route(TOPICS.device("dev-0", "info"), b"garbage", True)
    made.settle()
    made.start(devices=())
    made.settle()
    assert [member.device for member in made.desk.rollout.members] == ["dev-0", "dev-1"]
    assert made.offered() == {"dev-0"}
