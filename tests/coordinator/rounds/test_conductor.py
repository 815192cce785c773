"""What a round waits for, and what ends a wait: links, devices that are away or busy, a stop."""

from __future__ import annotations

from dataclasses import replace

import pytest

from coordinator.rounds.conductor import _MOST_SKIPPED
from coordinator.rounds.phases import Phase, last_round
from tests.coordinator.room import TOPICS
from tests.memory_fleet import InlineEvaluator
from wire.frame import Kind, encode_frame
from wire.messages.reports import Ask, DeviceState, encode_ask, encode_state
from wire.transport import Down, MemoryTransport, Up


def answer(made, *devices):
    for device in devices:
        made.send(device, made.forger(device).update(device))


def decline(made, device, **words):
    ask = Ask("decline", run=made.run, round=made.state.number, code="E-HOT")
    made.say(device, "ask", encode_ask(replace(ask, **words)))


def says(made, device, state, number=-1):
    said = DeviceState(state, 1, made.run if number >= 0 else "", number)
    made.intruder.transport.publish(TOPICS.device(device, "state"), encode_state(said), retain=True)
    made.settle()


def wait(made, seconds):
    made.clock_s += seconds
    for _ in range(8):  # every step without a message does one thing
        made.settle()


def link(made, event):
    made.state.transport.inbox.append(event)
    made.settle()


def restart(made, evaluator=None):
    """Another process takes the run over, on a link of its own."""
    made.state.transport.close()
    transport = MemoryTransport(made.hub)
    evaluator = evaluator or InlineEvaluator()
    made.federation = made.home.federation(made.run, "test", transport, evaluator, lambda: made.clock_s)
    made.settle()


def why(made):
    return last_round(made.home.database, made.run).reason


def ledger_lines(made):
    return len(list(made.home.database.ledger(made.run)))


def test_a_deadline_does_not_run_out_while_there_is_no_link(room):
    made = room("devices.deadline_s=50", "devices.quorum=0.5", "devices.max_abandoned=1")
    wait(made, 30)
    link(made, Down("gone"))
    for _ in range(10):
        wait(made, 1000)
    assert (made.state.number, made.state.collecting) == (0, True)
    assert why(made) == "there is no link to the broker"
    assert made.federation.conductor.due_s(made.clock_s) is None
    link(made, Up(65536))
    wait(made, 6)
    assert why(made) == ""
    assert made.federation.conductor.due_s(made.clock_s) == 14.0
    answer(made, "dev-0")
    wait(made, 13)
    assert made.state.number == 0
    wait(made, 1)
    assert (made.state.number, len(made.noted("phase", phase="published"))) == (1, 1)


def test_who_is_here_with_another_task_is_told_of(room):
    """A slip in a device's configuration: it looks ready, and the round would wait for it for ever without a word."""
    made = room("devices.goal=2", devices=("dev-0",))
    for device, task in (("dev-1", "ehco"), ("dev-2", "\x1b[2J"), ("dev-3", "ehco")):
        info = encode_frame(Kind.INFO, {"task": task})
        made.intruder.transport.publish(TOPICS.device(device, "info"), info, retain=True)
        says(made, device, "ready")
    wait(made, 6)
    others = "(3 more with another task: '\\x1b[2J', 'ehco')"
    assert why(made) == f"1 of 2 devices are here {others}, after 300 s 2 are enough"
    says(made, "dev-1", "lost")
    wait(made, 6)
    assert "(2 more with another task: " in why(made)


def test_nobody_is_selected_while_there_is_no_link_and_no_time_passes(room):
    made = room("devices.selection_timeout_s=50", "devices.quorum=0.5", "devices.max_abandoned=1")
    says(made, "dev-1", "lost")
    answer(made, "dev-0", "dev-1")
    wait(made, 1)
    assert (made.state.number, made.state.row.phase) == (1, Phase.SELECTION)
    link(made, Down("gone"))
    for _ in range(10):
        wait(made, 1000)
    link(made, Up(65536))
    wait(made, 48)
    assert (made.state.number, made.state.row.phase) == (1, Phase.SELECTION)
    wait(made, 1)
    assert made.state.collecting


@pytest.mark.parametrize("timeout_s", [0, 60])
def test_too_few_devices_are_waited_for_in_one_round_that_costs_the_ledger_nothing(room, timeout_s):
    most = ("devices.max_abandoned=1", "rounds=1", "devices.goal=2")
    made = room(f"devices.selection_timeout_s={timeout_s}", *most, devices=("dev-0",))
    lines = ledger_lines(made)
    for _ in range(1000):
        wait(made, 30)
        assert made.federation.conductor.due_s(made.clock_s) > 0
    assert (made.state.number, made.state.row.phase, ledger_lines(made)) == (0, Phase.SELECTION, lines)
    assert why(made) == f"1 of 2 devices are here, after {timeout_s} s 2 are enough"
    made.join("dev-1")
    wait(made, 1)
    answer(made, "dev-0", "dev-1")
    assert made.noted("run")[-1]["status"] == "done"


def test_who_comes_back_after_an_outage_finds_others_that_come_a_moment_later(room):
    """The round that waited long takes no bare quorum at once."""
    made = room("devices.selection_timeout_s=60", "devices.goal=3", "devices.quorum=0.6", devices=("dev-0",))
    wait(made, 1000)
    made.join("dev-1")
    wait(made, 2)
    assert made.state.row.phase is Phase.SELECTION
    made.join("dev-2")
    assert (made.state.collecting, sorted(made.state.book.outcomes(0))) == (True, ["dev-0", "dev-1", "dev-2"])


FOLD = ("devices.late=fold", "devices.deadline_s=50", "devices.selection_timeout_s=20", "rounds=9")


def missed(made):
    """The round ends with dev-0's update; dev-2 is still at work for it."""
    says(made, "dev-2", "training", made.state.number)
    answer(made, "dev-0", "dev-1")
    wait(made, 50)


def test_who_is_at_work_for_a_round_that_still_welcomes_it_is_left_out(room):
    made = room(*FOLD, "devices.quorum=0.6", devices=("dev-0", "dev-1", "dev-2"))
    late = made.forger("dev-2").update("dev-2")
    missed(made)
    assert (made.state.number, sorted(made.state.book.outcomes(1))) == (1, ["dev-0", "dev-1"])
    made.send("dev-2", late)
    answer(made, "dev-0", "dev-1")
    assert [(line["round"], line["into"]) for line in made.noted("accepted", device="dev-2")] == [(0, 1)]
    assert (made.state.number, sorted(made.state.book.outcomes(2))) == (2, ["dev-0", "dev-1", "dev-2"])


@pytest.mark.parametrize("state", ["ready", "uploading"])
def test_who_has_nothing_to_lose_is_invited_again(room, state):
    made = room(*FOLD, "devices.quorum=0.6", devices=("dev-0", "dev-1", "dev-2"))
    says(made, "dev-2", state, 0 if state == "uploading" else -1)
    answer(made, "dev-0", "dev-1")
    wait(made, 50)
    assert (made.state.number, sorted(made.state.book.outcomes(1))) == (1, ["dev-0", "dev-1", "dev-2"])


def test_where_too_few_are_free_those_at_work_are_asked_in_the_end(room):
    made = room(*FOLD, devices=("dev-0", "dev-1", "dev-2"))
    missed(made)
    wait(made, 1)  # the pause after an abandoned round
    assert (made.state.number, made.state.row.phase) == (1, Phase.SELECTION)
    assert why(made) == "3 of 3 devices are here, 1 of them at work for earlier rounds, after 20 s 3 are enough"
    wait(made, 19)
    assert (made.state.collecting, sorted(made.state.book.outcomes(1))) == (True, ["dev-0", "dev-1", "dev-2"])


def test_where_late_updates_are_refused_nobody_is_left_out(room):
    made = room("devices.deadline_s=50", "devices.quorum=0.6", devices=("dev-0", "dev-1", "dev-2"))
    missed(made)
    assert (made.state.number, sorted(made.state.book.outcomes(1))) == (1, ["dev-0", "dev-1", "dev-2"])


DONE = {"code": "E-ROUND-DONE", "reason": "round 7 of run x is done here", "done": 7}


def test_devices_that_are_done_with_later_rounds_move_the_numbers_on(room):
    made = room("devices.quorum=0.5")
    decline(made, "dev-0", **DONE)
    decline(made, "dev-1", **{**DONE, "done": 4})
    (line,) = made.noted("phase", phase="abandoned")
    assert line["reason"].endswith("devices are done with round 7 (is this home a copy?): numbers go on above it")
    restart(made)
    made.join("dev-0", "dev-1")
    wait(made, 1)
    assert (made.state.number, made.state.collecting) == (8, True)
    for number in (8, 9, 10):
        assert made.state.number == number
        answer(made, "dev-0", "dev-1")
    assert made.noted("run")[-1]["status"] == "done"
    assert [line["round"] for line in made.noted("phase", phase="published")] == [8, 9, 10]


def test_one_device_does_not_move_the_numbers_of_a_round_that_goes_well(room):
    made = room("devices.quorum=0.5")
    decline(made, "dev-0", **DONE)
    answer(made, "dev-1")
    assert (made.state.number, len(made.noted("phase", phase="published"))) == (1, 1)


def test_no_device_moves_the_numbers_to_where_no_plan_can_go(room):
    made = room(devices=("dev-0",))
    decline(made, "dev-0", **{**DONE, "done": 1 << 31})
    assert made.state.number == _MOST_SKIPPED + 1
    decline(made, "dev-0", code="E-HOT")
    wait(made, 1)
    assert made.state.collecting


def test_a_run_that_was_stopped_goes_on_where_it_is_opened_again(room):
    made = room("devices.max_abandoned=2", "rounds=1", devices=("dev-0",))
    for _ in range(2):
        decline(made, "dev-0")
        wait(made, 1)
    assert (made.federation.over, made.noted("run")[-1]["status"]) == (True, "stopped")
    made.home.reopen(made.run)
    restart(made)
    made.join("dev-0")
    assert (made.state.number, made.state.collecting) == (2, True)
    decline(made, "dev-0")
    assert not made.federation.over
    wait(made, 1)
    answer(made, "dev-0")
    assert [line["status"] for line in made.noted("run")] == ["open", "stopped", "open", "done"]
    made.home.reopen(made.run)
    assert len(made.noted("run")) == 4
