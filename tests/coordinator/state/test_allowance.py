"""An honest device may ask whatever it needs, also over the worst link; who asks more is dropped, and refused once."""

from __future__ import annotations

import pytest

from coordinator.rounds.descent import _MOST_KEPT
from coordinator.state.allowance import Allowance, admits
from edge_agent.fetch import fetch_blobs
from tests.coordinator.room import TOPICS
from wire.errors import Refused
from wire.messages.reports import Ask, DeviceState, encode_ask, encode_state
from wire.transport import Message

NOWHERE = "ab" * 32


def admitted(asks, device, payloads, now_s):
    return [admits(asks, device, payload, now_s) for payload in payloads]


def test_a_device_that_catches_up_over_a_bad_link_is_always_heard(tmp_path):
    """All deltas there are, twice as many links as last long enough, silence on each."""
    fetch = fetch_blobs(tmp_path, {f"{number:064x}": 5000 for number in range(_MOST_KEPT + 4)})
    asks, now_s = Allowance(), 0.0
    for _ in range(20):
        for wait_s in (0.0, 2.0, 3.0):
            now_s += wait_s
            payloads = [encode_ask(ask) for ask in fetch.questions(now_s)]
            assert len(payloads) == _MOST_KEPT + 4
            assert all(admitted(asks, "pi", payloads, now_s))
        fetch.cut()


def test_what_is_too_much_is_refused_once_and_then_dropped():
    asks = Allowance(most=3)
    assert admitted(asks, "a", [b"?"] * 3, 1.0) == [True] * 3
    with pytest.raises(Refused) as caught:
        admits(asks, "a", b"?", 1.0)
    assert caught.value.code == "E-RATE"
    assert admitted(asks, "a", [b"?"] * 5, 10.9) == [False] * 5
    assert admits(asks, "b", b"?", 10.9)
    assert admitted(asks, "a", [b"?"] * 3, 11.0) == [True] * 3


@pytest.mark.parametrize(("size", "many"), [(511, 8), (512, 4), (4096, 0)])
def test_a_long_question_counts_as_several(size, many):
    asks = Allowance(most=8)
    assert admitted(asks, "a", [bytes(size)] * many, 0.0) == [True] * many
    with pytest.raises(Refused):
        admits(asks, "a", bytes(size), 0.0)
    assert not admits(asks, "a", bytes(size), 0.0)


def test_only_devices_of_the_last_while_are_remembered():
    asks = Allowance()
    for number in range(100):
        asks.excess(f"d-{number}", float(number))
    assert len(asks.used) == 10


def test_more_questions_than_an_honest_device_has_are_dropped_and_refused_once_in_a_while(room):
    made = room()
    desk, plan = made.federation.desk, made.forger().plan
    question = encode_ask(Ask("blob", plan.spec, spans=((0, plan.spec_bytes),)))
    desk.asks.most = 100

    def ask(times):
        for _ in range(times):
            desk.read(Message(TOPICS.device("greedy", "ask"), question))

    ask(100)
    assert made.noted("refused") == []
    ask(300)
    assert [line["code"] for line in made.noted("refused", device="greedy")] == ["E-RATE"]
    made.say("dev-0", "ask", encode_ask(Ask("blob", NOWHERE, spans=((0, 9),))))
    assert made.noted("refused", device="dev-0", code="E-BLOB")  # nobody else is dropped
    made.clock_s += 10.0
    ask(100)
    assert len(made.noted("refused", device="greedy")) == 1
    ask(1)
    assert desk.refusals[desk._spell, "greedy"] == 2


def test_states_that_never_rest_fill_no_log(room, capsys):
    made = room()

    def states(times):
        capsys.readouterr()
        for turn in range(times):
            state = DeviceState("training" if turn % 2 else "idle", 1)
            made.federation.desk.read(Message(TOPICS.device("dev-0", "state"), encode_state(state)))
        assert made.state.registry.devices["dev-0"].state == state
        return capsys.readouterr().err.count("event=device ")

    made.clock_s += 10.0
    assert (states(500), states(500)) == (40, 0)
    made.clock_s += 10.0
    assert states(10) == 10
    for number in range(20):
        made.say("dev-0", "up", b"rubbish %d" % number)
    assert states(10) == 0
