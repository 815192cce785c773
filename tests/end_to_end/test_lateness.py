"""Devices that are slow, away, restarted, renamed or new, and rounds that close without them: on a made-up clock."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace

import pytest

from coordinator.home import open_home
from coordinator.recipe import load_recipe
from edge_agent.fetch import Assembly
from edge_agent.kept import standing
from tests.end_to_end.delays import (
    SlowWorker,
    accepted,
    come_back,
    finish,
    go_away,
    leave_with_an_update,
    noted,
    published,
    reported,
    turn_until,
)
from tests.end_to_end.fleet import undisturbed_model
from tests.memory_fleet import MemoryFleet

TEN_MINUTES_S = 600.0


@pytest.fixture
def meet(tmp_path):
    """Returns a function that opens a federation; its last device is the one that things happen to."""
    with open_home(tmp_path / "home") as home:

        def make(*settings, rounds=3):
            recipe = load_recipe("echo", ["devices.goal=3", f"rounds={rounds}", 'model="vector-64"', *settings])
            return MemoryFleet(home, home.new_run(recipe), tmp_path / "devices", recipe)

        yield make


def undisturbed(tmp_path, fleet):
    return undisturbed_model(tmp_path / "undisturbed", fleet.recipe)


def test_ten_minutes_of_training_are_waited_for(meet, tmp_path):
    fleet = meet()
    fleet.agents[2].worker = SlowWorker(fleet, TEN_MINUTES_S)
    turn_until(fleet, lambda: fleet.agents[2].presence.said and fleet.agents[2].presence.said.state == "training")
    turn_until(fleet, lambda: fleet.clock_s > 500)
    assert fleet.federation.state.registry.devices["dev-2"].state.state == "training"
    assert finish(fleet) == undisturbed(tmp_path, fleet)
    assert fleet.clock_s > 3 * TEN_MINUTES_S


def test_round_closes_at_its_deadline_without_the_slow_one(meet):
    fleet = meet("devices.deadline_s=300", "devices.quorum=0.6")
    slow = fleet.agents[2]
    slow.worker = SlowWorker(fleet, TEN_MINUTES_S)
    turn_until(fleet, lambda: slow.work is not None)
    turn_until(fleet, lambda: 0 in published(fleet))
    assert 300 <= fleet.clock_s < 400
    finish(fleet)
    assert reported(fleet) == {0: (2, 1), 1: (2, 1), 2: (2, 1)}
    turn_until(fleet, lambda: slow.work is None and slow.presence.said.state == "ready")
    assert not slow.uploads


def test_update_after_the_deadline_is_refused_by_name(meet):
    """And the next round, in which the refusal comes, is not taken for the one that is done with."""
    fleet = meet("devices.deadline_s=300", "devices.quorum=0.3")
    away, late = fleet.agents[1:]
    leave_with_an_update(fleet, late)
    turn_until(fleet, lambda: accepted(fleet, "dev-1"))
    go_away(fleet, away)
    turn_until(fleet, lambda: 0 in published(fleet))
    come_back(fleet, late)
    turn_until(fleet, lambda: not late.uploads)
    assert [line["code"] for line in noted(fleet, "refused", device="dev-2")] == ["E-ROUND-CLOSED"]
    assert (late.trouble[0], late.state.state) == ("E-ROUND-CLOSED", "idle")
    assert not list(late.outbox.glob("*.update"))
    come_back(fleet, away)
    finish(fleet)
    assert accepted(fleet, "dev-2") == [(1, 1), (2, 2)]


def test_update_after_the_deadline_counts_in_the_next_round_where_late_ones_are_folded(meet):
    fleet = meet("devices.deadline_s=300", "devices.quorum=0.6", 'devices.late="fold"')
    late = fleet.agents[2]
    leave_with_an_update(fleet, late)
    turn_until(fleet, lambda: 0 in published(fleet))
    come_back(fleet, late)
    finish(fleet)
    assert accepted(fleet, "dev-2")[0] == (0, 1)
    assert not noted(fleet, "refused")
    assert not late.uploads


def test_update_that_is_too_old_is_refused_even_where_late_ones_are_folded(meet):
    late_ones = ('devices.late="fold"', "devices.max_staleness=1", "devices.selection_timeout_s=100")
    fleet = meet("devices.deadline_s=300", "devices.quorum=0.6", *late_ones, rounds=5)
    late = fleet.agents[2]
    leave_with_an_update(fleet, late)
    turn_until(fleet, lambda: 2 in published(fleet))
    come_back(fleet, late)
    turn_until(fleet, lambda: not [upload for upload in late.uploads.values() if upload.entry.round == 0])
    assert [line["code"] for line in noted(fleet, "refused", device="dev-2")] == ["E-ROUND-CLOSED"]
    finish(fleet)


def test_invitation_waits_for_a_device_that_nobody_knew_was_gone(meet, tmp_path):
    fleet = meet()
    gone = fleet.agents[2]
    turn_until(fleet, lambda: "dev-2" in fleet.federation.state.registry.devices)
    go_away(fleet, gone, will=False)
    turn_until(fleet, lambda: fleet.clock_s > 200)
    assert (fleet.federation.state.number, published(fleet)) == (0, set())
    come_back(fleet, gone)
    assert finish(fleet) == undisturbed(tmp_path, fleet)


def test_lost_device_is_not_selected(meet):
    fleet = meet("devices.quorum=0.6", "devices.selection_timeout_s=60")
    turn_until(fleet, lambda: 0 in published(fleet))
    go_away(fleet, fleet.agents[2])
    finish(fleet)
    assert fleet.federation.state.registry.devices["dev-2"].state.state == "lost"
    assert reported(fleet)[2] == (2, 0)


@pytest.mark.parametrize("moment", ["fetching", "training", "uploading"])
def test_restarted_device_goes_on_and_nothing_is_lost(meet, tmp_path, moment):
    fleet = meet()
    agent = fleet.agents[2]
    if moment == "uploading":
        leave_with_an_update(fleet, agent)
    else:
        agent.worker = SlowWorker(fleet, 50.0)
        turn_until(fleet, lambda: agent.work and (moment == "fetching" or agent.work.training))
        go_away(fleet, agent)
    fleet.agents[2] = fleet.agent(2)
    assert fleet.agents[2].standing.session == 2
    assert finish(fleet) == undisturbed(tmp_path, fleet)


def test_renamed_device_is_told_that_nobody_invited_it_before_it_sends_the_old_names_update(meet):
    fleet = meet("devices.deadline_s=300", "devices.quorum=0.6")
    leave_with_an_update(fleet, fleet.agents[2])
    renamed = fleet.agent(2)
    renamed.config = replace(renamed.config, device="dev-9")
    fleet.agents[2] = renamed
    turn_until(fleet, lambda: not renamed.uploads)
    assert [line["code"] for line in noted(fleet, "refused", device="dev-9")] == ["E-NOT-INVITED"]
    assert renamed.trouble[0] == "E-NOT-INVITED"
    finish(fleet)
    assert accepted(fleet, "dev-2") == []
    assert accepted(fleet, "dev-9") == [(1, 1), (2, 2)]


def test_device_that_was_installed_anew_takes_part_again(meet, tmp_path):
    fleet = meet()
    for _ in range(3):
        go_away(fleet, fleet.agents[2])
        fleet.agents[2] = fleet.agent(2)
        turn_until(fleet, lambda: fleet.agents[2].presence.said is not None)
    turn_until(fleet, lambda: 0 in published(fleet))
    assert fleet.federation.state.registry.devices["dev-2"].state.session == 4
    go_away(fleet, fleet.agents[2])
    shutil.rmtree(fleet.agents[2].config.state_dir)
    fleet.agents[2] = fleet.agent(2)
    assert fleet.agents[2].standing.session == 1
    assert finish(fleet) == undisturbed(tmp_path, fleet)
    assert fleet.federation.state.registry.devices["dev-2"].state.session == 1


def test_more_are_invited_than_are_waited_for(meet):
    fleet = meet("devices.goal=2", "devices.over=1.5", rounds=4)
    fleet.agents.append(fleet.agent(2))
    slow = fleet.agents[2]
    turn_until(fleet, lambda: 0 in published(fleet))
    slow.worker = SlowWorker(fleet, TEN_MINUTES_S)
    finish(fleet)
    invited = {line["round"]: line["devices"] for line in noted(fleet, "phase", phase="configuration")}
    assert invited[2] == invited[3] == ["dev-0", "dev-1", "dev-2"]
    assert reported(fleet)[2] == reported(fleet)[3] == (2, 1)
    assert fleet.clock_s < TEN_MINUTES_S
    turn_until(fleet, lambda: slow.work is None)
    assert (slow.uploads, slow.trouble) == ({}, ("", ""))


def test_too_few_for_a_quorum_abandon_the_round_and_say_so(meet):
    fleet = meet("devices.deadline_s=300", "devices.max_abandoned=3")
    turn_until(fleet, lambda: "dev-2" in fleet.federation.state.registry.devices)
    fleet.agents[2].worker = SlowWorker(fleet, 10 * TEN_MINUTES_S)
    finish(fleet)
    gone = noted(fleet, "phase", phase="abandoned")
    assert [line["reason"] for line in gone] == ["2 of 3 updates, 0 declined, 0 refused, 1 silent"] * 3
    assert {line["code"] for line in noted(fleet, "refused")} == {"E-ROUND-ABANDONED"}
    assert len(noted(fleet, "refused")) == len(noted(fleet, "accepted")) == 6
    end = noted(fleet, "run")[-1]
    assert (end["status"], end["reason"]) == (
        "stopped",
        "3 rounds in a row were abandoned, the last: 2 of 3 updates, 0 declined, 0 refused, 1 silent",
    )


def test_too_few_devices_are_waited_for_however_long(meet, tmp_path):
    fleet = meet("devices.selection_timeout_s=60", "devices.max_abandoned=2")
    turn_until(fleet, lambda: 0 in published(fleet))
    for agent in fleet.agents[1:]:
        go_away(fleet, agent)
    turn_until(fleet, lambda: fleet.clock_s > 3 * TEN_MINUTES_S)
    for agent in fleet.agents[1:]:
        come_back(fleet, agent)
    assert finish(fleet) == undisturbed(tmp_path, fleet)


def test_a_device_that_is_always_late_counts_where_late_updates_are_folded(meet):
    fleet = meet("devices.deadline_s=300", "devices.quorum=0.6", 'devices.late="fold"', rounds=8)
    for agent in fleet.agents[:2]:
        agent.worker = SlowWorker(fleet, 60.0)
    fleet.agents[2].worker = SlowWorker(fleet, 400.0)
    finish(fleet)
    assert accepted(fleet, "dev-2")[0] == (0, 2)
    assert not noted(fleet, "refused")


def test_a_home_that_was_restored_from_a_copy_goes_on_above_what_its_devices_have_done(meet, tmp_path):
    fleet = meet(rounds=6)
    turn_until(fleet, lambda: 1 in published(fleet))
    shutil.copytree(tmp_path / "home", tmp_path / "copy")
    turn_until(fleet, lambda: 3 in published(fleet))
    fleet.federation.state.transport.close()
    with open_home(tmp_path / "copy") as fleet.home:
        fleet.federation = fleet.coordinator()
        finish(fleet)
        declined = {line["code"] for line in noted(fleet, "declined")}
        assert (declined, len(published(fleet))) == ({"E-ROUND-DONE"}, 6)
        assert max(published(fleet)) > 6


def no_space(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_while_fetching_is_a_decline_with_its_name(meet, monkeypatch):
    fleet = meet("devices.quorum=0.6")
    broken, put = fleet.agents[2].store, Assembly.put
    full = [True]

    def put_or_fail(self, chunk):
        return no_space() if full[0] and self.folder == broken else put(self, chunk)

    monkeypatch.setattr(Assembly, "put", put_or_fail)
    turn_until(fleet, lambda: 0 in published(fleet))
    assert [(line["round"], line["code"]) for line in noted(fleet, "declined")] == [(0, "E-DISK-SPACE")]
    full[0] = False
    finish(fleet)
    assert accepted(fleet, "dev-2")[-1] == (2, 2)


def test_full_disk_when_the_receipt_comes_is_tried_again(meet, monkeypatch, tmp_path):
    fleet = meet()
    agent, write = fleet.agents[2], standing.write_whole
    full = [True]

    def write_or_fail(path, data, durable):
        return no_space() if full[0] and path.parent == agent.config.state_dir else write(path, data, durable)

    monkeypatch.setattr(standing, "write_whole", write_or_fail)
    turn_until(fleet, lambda: agent.trouble[0] == "E-DISK-SPACE")
    assert list(agent.outbox.glob("*.update"))
    full[0] = False
    assert finish(fleet) == undisturbed(tmp_path, fleet)
    turn_until(fleet, lambda: not agent.uploads)
    assert not list(agent.outbox.glob("*.update"))
