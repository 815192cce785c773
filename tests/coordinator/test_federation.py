"""What the loop does about its surroundings: plans that the broker keeps, pauses, links, sums, disks."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from coordinator.rounds import accept as accept_module
from coordinator.rounds import planner as planner_module
from coordinator.rounds.phases import Phase
from tests.coordinator.room import TOPICS
from tests.memory_fleet import InlineEvaluator
from wire.errors import StateError, TransportError
from wire.messages.reports import Ask, DeviceState, encode_ask, encode_state
from wire.messages.update import Update, UpdateHeader, encode_update
from wire.transport import Down, MemoryTransport, Message, Unsent, Up


def answer(made, *devices):
    for device in devices:
        made.send(device, made.forger(device).update(device))


def decline(made, device):
    made.say(device, "ask", encode_ask(Ask("decline", run=made.run, round=made.state.number, code="E-HOT")))


def plans(made):
    return {TOPICS.split(topic)[0] for topic in made.hub.retained if topic.endswith("/plan")}


def lose(made, device):
    made.intruder.transport.publish(TOPICS.device(device, "state"), encode_state(DeviceState("lost", 1)), retain=True)
    made.settle()


def wait(made, seconds):
    made.clock_s += seconds
    for _ in range(8):  # every step without a message does one thing
        made.settle()


@pytest.fixture
def watched(room, monkeypatch):
    """As `room`, with a list of the plans that were taken back."""

    def make(*settings, **more):
        made = room(*settings, **more)
        made.emptied = []
        route = made.hub.route

        def note(topic, payload, retain):
            if topic.endswith("/plan") and not payload:
                made.emptied.append(TOPICS.split(topic)[0])
            return route(topic, payload, retain)

        made.hub.route = note
        return made

    return make


def restart(made):
    """Another process takes the run over, on a link of its own."""
    made.state.transport.close()
    transport = MemoryTransport(made.hub)
    made.federation = made.home.federation(made.run, "test", transport, InlineEvaluator(), lambda: made.clock_s)
    made.settle()


def test_an_undisturbed_run_takes_plans_back_once_and_at_its_end(watched):
    made = watched()
    for _ in range(2):
        answer(made, "dev-0", "dev-1")
        assert made.emptied == []
    answer(made, "dev-0", "dev-1")
    assert made.federation.over
    assert made.emptied == ["dev-0", "dev-1"]
    assert not plans(made)


def test_a_device_that_is_not_invited_again_keeps_no_plan(watched):
    made = watched("devices.selection_timeout_s=60", "devices.quorum=0.5")
    lose(made, "dev-1")
    answer(made, "dev-0", "dev-1")
    assert made.state.number == 1
    made.clock_s += 61
    made.settle()
    assert made.state.collecting
    assert (plans(made), made.emptied) == ({"dev-0"}, ["dev-1"])


def test_a_device_that_declined_is_cleared_when_the_round_closes_and_invited_again(watched):
    made = watched("devices.quorum=0.5")
    decline(made, "dev-1")
    answer(made, "dev-0")
    assert made.emptied == ["dev-1"]
    assert (made.state.number, plans(made)) == (1, {"dev-0", "dev-1"})


def test_after_a_kill_between_the_end_and_the_clearing_the_next_process_clears(watched, monkeypatch):
    made = watched("rounds=1")
    monkeypatch.setattr(type(made.state), "withdraw", lambda self: None)
    answer(made, "dev-0", "dev-1")
    assert made.federation.over
    assert plans(made) == {"dev-0", "dev-1"}
    monkeypatch.undo()
    restart(made)
    assert not plans(made)


def test_what_was_over_while_the_link_was_down_is_cleared_when_it_is_up(watched):
    made = watched()
    answer(made, "dev-0")
    made.intruder.send_up("dev-1", made.forger("dev-1").update("dev-1"))
    made.state.transport.inbox.append(Down("gone"))
    wait(made, 60)
    assert (made.state.number, plans(made)) == (1, {"dev-0", "dev-1"})
    lose(made, "dev-1")
    made.state.transport.inbox.append(Up(65536))
    made.settle()
    assert not plans(made)


def test_a_late_device_keeps_its_plan_as_long_as_its_update_is_welcome(watched):
    settings = ("devices.late=fold", "devices.max_staleness=1", "devices.deadline_s=50", "devices.quorum=0.5")
    made = watched(*settings, "devices.selection_timeout_s=10")
    answer(made, "dev-0")
    lose(made, "dev-1")
    wait(made, 51)
    assert made.state.number == 1
    for number, kept in ((1, True), (2, False)):
        wait(made, 11)
        assert (made.state.number, made.state.collecting) == (number, True)
        assert ("dev-1" in plans(made)) == kept
        if kept:
            answer(made, "dev-0")
            wait(made, 51)


def test_declines_do_not_use_the_rounds_up_at_once(room):
    made = room("devices.max_abandoned=4", "devices.selection_timeout_s=3", devices=("dev-0",))
    for number, pause_s in enumerate((1.0, 2.0, 3.0)):
        decline(made, "dev-0")
        assert (made.state.number, made.state.row.phase) == (number + 1, Phase.SELECTION)
        assert made.federation.conductor.due_s(made.clock_s) == pause_s
        made.clock_s += pause_s - 0.25
        made.settle()
        assert made.state.row.phase is Phase.SELECTION
        assert made.federation.conductor.due_s(made.clock_s) == 0.25
        made.clock_s += 0.25
        made.settle()
        assert made.state.collecting
    decline(made, "dev-0")
    assert made.federation.over


def test_a_published_round_ends_the_pauses_and_a_restart_keeps_them(room):
    made = room(devices=("dev-0",))
    for _ in range(2):
        decline(made, "dev-0")
        made.clock_s += 2
        made.settle()
    assert (made.state.number, made.state.collecting) == (2, True)
    decline(made, "dev-0")
    restart(made)
    assert made.federation.conductor.pause_s == 4.0
    made.join("dev-0")
    made.clock_s += 4
    made.settle()
    answer(made, "dev-0")
    assert made.federation.conductor.pause_s == 0.0
    assert (made.state.number, made.state.collecting) == (4, True)


def huge(made, device):
    forger = made.forger(device)
    plan = forger.plan
    tensors = {name: np.full_like(value, 3.4e38) for name, value in forger.base.items()}
    return encode_update(
        Update(UpdateHeader(plan.run, plan.round, device, plan.base, plan.kind, 1), tensors), plan, forger.spec
    )


def test_updates_whose_sum_is_not_finite_cost_their_round_and_not_the_run(room, monkeypatch):
    """Acceptance lets no value through that is so large; the next line of defence holds without it."""
    monkeypatch.setattr(accept_module, "_check_magnitude", lambda *_: None)
    made = room("server.rate=3.0", "rounds=1")
    before = made.state.planner.model_digest
    for device in ("dev-0", "dev-1"):
        made.send(device, huge(made, device))
    (line,) = made.noted("phase", phase="abandoned")
    assert "E-NONFINITE" in line["reason"]
    assert [line["code"] for line in made.noted("refused")] == ["E-ROUND-ABANDONED"] * 2
    assert made.state.planner.model_digest == before
    made.clock_s += 1
    made.settle()
    assert made.forger().plan.base == before
    restart(made)
    answer(made, "dev-0", "dev-1")
    assert made.noted("run")[-1]["status"] == "done"
    assert made.state.planner.model_digest != before


def test_a_full_disk_while_folding_ends_the_process_with_one_line_and_can_be_resumed(room, monkeypatch):
    made = room("rounds=1")

    def fail(path: Path, state, spec, durable):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(planner_module, "save_state", fail)
    with pytest.raises(StateError, match="No space left"):
        answer(made, "dev-0", "dev-1")
    monkeypatch.undo()
    restart(made)
    assert made.federation.over
    assert made.noted("run")[-1]["status"] == "done"


def test_a_subscription_that_the_broker_refuses_ends_the_process(room):
    made = room()
    made.state.transport.inbox.append(Unsent(0, "fl/1/test/d/+/up", 0x87, "Not authorized"))
    with pytest.raises(TransportError, match=r"refuses the subscription to fl/1/test/d/.*/up: Not"):
        made.settle()


def test_a_message_that_the_broker_does_not_take_is_in_the_log(room, capsys):
    made = room()
    made.state.source.flying.add(7)
    made.state.transport.inbox.append(Unsent(7, "fl/1/test/b/x", 0x97, "Quota exceeded"))
    made.settle()
    assert 7 not in made.state.source.flying
    assert "event=unsent topic=fl/1/test/b/x code=151 reason='Quota exceeded'" in capsys.readouterr().err


def test_what_the_broker_repeats_is_not_counted_as_sent_by_the_device(room):
    made = room()
    made.state.accounts.take()
    topic, payload = TOPICS.device("dev-0", "state"), encode_state(DeviceState("ready", 1))
    made.federation.desk.read(Message(topic, payload, retained=True))
    assert made.state.accounts.up == {}
    made.federation.desk.read(Message(topic, payload))
    assert list(made.state.accounts.up) == ["dev-0"]


def test_bytes_of_a_run_that_is_stopped_are_booked(room):
    made = room("devices.max_abandoned=1", devices=("dev-0",))
    made.state.accounts.sent("dev-9", "topic", 5)
    decline(made, "dev-0")
    assert made.federation.over
    assert [set(line["down"]) for line in made.noted("traffic")] == [{"dev-0", "dev-9"}, {"dev-0"}]
