"""Every refusal has its code, reaches the device, the log and the ledger, and the round goes on."""

from __future__ import annotations

import struct

import pytest

from coordinator.home import open_home
from coordinator.rounds import accept
from coordinator.rounds.phases import Phase
from coordinator.state.registry import Registry
from tests.end_to_end.hostile_client import CODED, attacks
from wire.bits import Bits
from wire.frame import Kind, encode_frame
from wire.messages.reports import Ask, DeviceState, encode_ask, encode_state
from wire.pieces.chunks import encode_chunk

PLAIN = "seed=1"


def names(coding):
    """Returns the names of all attacks under a coding; they depend on nothing else."""
    common = [
        *("header of another device", "far too long", "not a frame", "cut off", "another kind of frame"),
        *("header without a base", "measurement that is a list", "kind that does not exist", "broken checksum"),
        *("protocol of tomorrow", "another run", "round to come", "another base", "weights for a delta", "no tensors"),
        *("a byte too many", "another count", "no examples", "less than no examples", "more examples than anybody has"),
    ]
    plain = ["not a number", "infinite", "a value too few", "finite and huge"]
    coded = [
        *("another level count", "symbol outside the alphabet", "scale zero", "scale below zero"),
        *("scale that is no number", "scale without end", "scale beyond belief", "falling positions"),
        *("position past the end", "positions in no known coding", "no positions"),
    ]
    return common + (coded if coding == CODED else plain)


@pytest.mark.parametrize(("coding", "name"), [(coding, name) for coding in (PLAIN, CODED) for name in names(coding)])
def test_wrong_update_is_refused_by_name_and_a_right_one_still_counts(room, capsys, coding, name):
    made = room(coding)
    update, code = attacks(made.forger(), "dev-0")[name]
    capsys.readouterr()
    digest = made.send("dev-0", update)
    assert f"event=refused device=dev-0 round=0 code={code} " in capsys.readouterr().err
    assert [line["code"] for line in made.noted("refused", device="dev-0", digest=digest)] == [code]
    assert made.intruder.verdicts("dev-0", digest) == {("refused", code)}
    assert made.outcome("dev-0") == ("" if code == "E-ROUND-CLOSED" else "refused")
    right = made.send("dev-0", made.forger().update("dev-0"))
    assert made.intruder.verdicts("dev-0", right) == {("accepted", "")}
    made.send("dev-1", made.forger().update("dev-1"))
    assert made.state.number == 1
    assert [line["missing"] for line in made.noted("phase", phase="aggregation")] == [0]


def test_the_table_of_attacks_is_whole(room):
    for coding in (PLAIN, CODED):
        assert sorted(attacks(room(coding).forger(), "dev-0")) == sorted(names(coding))
    tried = {code for coding in (PLAIN, CODED) for _, code in attacks(room(coding).forger(), "dev-0").values()}
    elsewhere = {"E-NOT-INVITED"}
    assert accept.__doc__
    documented = {f"E-{word.strip(',')[2:]}" for word in accept.__doc__.split() if word.startswith("E-")}
    assert tried | elsewhere == documented
    assert documented >= accept.CONTENT_CODES


@pytest.mark.parametrize("device", ["mallory", "unknown-9"])
def test_device_that_was_not_invited(room, device):
    made = room()
    digest = made.send(device, made.forger().update(device))
    assert made.intruder.verdicts(device, digest) == {("refused", "E-NOT-INVITED")}
    assert made.outcome(device) is None


def test_own_name_on_a_foreign_topic(room):
    made = room()
    digest = made.send("dev-1", made.forger().update("dev-0"))
    assert made.intruder.verdicts("dev-1", digest) == {("refused", "E-IDENTITY")}
    assert (made.outcome("dev-0"), made.outcome("dev-1")) == ("", "refused")


def test_the_same_bytes_again_get_the_same_receipt_and_count_once(room):
    made = room()
    first = made.forger()
    for _ in range(3):
        digest = made.send("dev-0", first.update("dev-0"))
    assert made.intruder.verdicts("dev-0", digest) == {("accepted", "")}
    assert len(made.intruder.receipts) == 3
    assert len(made.noted("accepted")) == 1
    made.send("dev-1", first.update("dev-1"))
    assert made.send("dev-0", first.update("dev-0")) == digest
    assert made.intruder.verdicts("dev-0", digest) == {("accepted", "")}
    assert (made.state.number, len(made.noted("accepted")), len(made.noted("refused"))) == (1, 2, 0)


def test_other_bytes_for_the_same_round_and_after_it(room):
    made = room()
    first = made.forger()
    made.send("dev-0", first.update("dev-0"))
    other = made.send("dev-0", first.update("dev-0", seconds=1.5))
    assert made.intruder.verdicts("dev-0", other) == {("refused", "E-DUPLICATE")}
    made.send("dev-1", first.update("dev-1"))
    stale = made.send("dev-0", first.update("dev-0", seconds=2.5))
    assert made.intruder.verdicts("dev-0", stale) == {("refused", "E-ROUND-CLOSED")}
    assert len(made.noted("accepted")) == 2


def test_example_counts_may_grow_tenfold_and_no_more(room):
    made = room()
    for device in ("dev-0", "dev-1"):
        made.send(device, made.forger().update(device))
    eleven = made.send("dev-0", made.forger().headed("dev-0", examples=11))
    ten = made.send("dev-0", made.forger().headed("dev-0", examples=10))
    assert made.intruder.verdicts("dev-0", eleven) == {("refused", "E-EXAMPLES")}
    assert made.intruder.verdicts("dev-0", ten) == {("accepted", "")}


def test_a_device_that_sends_huge_values_in_every_round_does_not_stop_the_run(room):
    made = room("devices.quorum=0.5", "devices.max_abandoned=1")
    for number in range(3):
        huge, code = attacks(made.forger(), "dev-0")["finite and huge"]
        assert made.intruder.verdicts("dev-0", made.send("dev-0", huge)) == {("refused", code)}
        assert made.outcome("dev-0") == "refused"
        made.send("dev-1", made.forger("dev-1").update("dev-1"))
        assert made.state.over or made.state.number == number + 1
    phases = [line["phase"] for line in made.noted("phase")]
    assert (phases.count("published"), phases.count("abandoned"), made.state.over) == (3, 0, True)


def test_the_largest_value_that_counts_is_the_recipes(room):
    made = room("devices.max_magnitude=2.0")
    too_large = ("refused", "E-MAGNITUDE")
    for value, verdict in ((-2.5, too_large), (2.5, too_large), (-2.0, ("accepted", ""))):
        sent = made.forger().carrying("dev-0", lambda old, value=value: old[:-4] + struct.pack("<f", value))
        assert made.intruder.verdicts("dev-0", made.send("dev-0", sent)) == {verdict}


DIGEST, NOTHING = "ab" * 32, "00" * 32
BAD_WORDS = {
    "state of garbage": ("state", b"\xff" * 60, "E-FRAME"),
    "state nobody knows": ("state", encode_frame(Kind.STATE, {"state": "dancing", "session": 1}), "E-FRAME"),
    "state of another kind": ("state", encode_frame(Kind.INFO, {"task": "echo"}), "E-FRAME"),
    "state with a huge header": ("state", encode_frame(Kind.STATE, {"state": "ready", "x": "y" * 5000}), "E-SIZE"),
    "session below zero": ("state", encode_frame(Kind.STATE, {"state": "ready", "session": -1}), "E-FRAME"),
    "info of garbage": ("info", b"info", "E-FRAME"),
    "info with a huge header": ("info", encode_frame(Kind.INFO, {"task": "y" * 5000}), "E-SIZE"),
    "info with a broken checksum": ("info", encode_frame(Kind.INFO, {"task": "echo"})[:-1] + b"\0", "E-CRC"),
    "question about nothing": ("ask", encode_frame(Kind.ASK, {"what": "money"}), "E-FRAME"),
    "question about an update without a name": ("ask", encode_ask(Ask("update", run="r", round=0)), "E-FRAME"),
    "question with ranges out of order": ("ask", encode_ask(Ask("blob", DIGEST, spans=((5, 9), (1, 2)))), "E-FRAME"),
    "question for no blob": ("ask", encode_ask(Ask("blob", DIGEST, spans=((0, 9),))), "E-BLOB"),
    "question for a path": ("ask", encode_frame(Kind.ASK, {"what": "blob", "digest": "../round.key"}), "E-FRAME"),
    "question for a round that is not there": ("ask", encode_ask(Ask("update", DIGEST, "r", 7, 9)), "E-ROUND-CLOSED"),
    "piece without data": ("up", encode_chunk(DIGEST, 9, 0, b""), "E-FRAME"),
    "piece that is too short": ("up", b"x", "E-FRAME"),
    "piece past its end": ("up", encode_chunk(DIGEST, 9, 8, b"xx"), "E-SIZE"),
    "piece of far too much": ("up", encode_chunk(DIGEST, 1 << 50, 0, b"x"), "E-SIZE"),
    "large piece of nothing": ("up", bytes(60_000), "E-SIZE"),
}


@pytest.mark.parametrize("name", BAD_WORDS)
@pytest.mark.parametrize("device", ["dev-0", "mallory"])
def test_what_makes_no_sense_is_refused_and_holds_nobody_up(room, device, name):
    made = room()
    leaf, payload, code = BAD_WORDS[name]
    digest = made.say(device, leaf, payload)
    assert {line["code"] for line in made.noted("refused", device=device)} == {code}
    answered = {r.digest: (r.verdict, r.code) for to, r in made.intruder.receipts if to == device}
    assert set(answered.values()) == {("refused", code)}
    assert set(answered) <= {digest, DIGEST, NOTHING}
    for one in ("dev-0", "dev-1"):
        made.send(one, made.forger().update(one))
    assert made.state.number == 1


def test_no_blob_is_longer_than_it_is(room):
    made = room()
    spec = made.forger().plan.spec
    size = made.forger().plan.spec_bytes
    made.say("dev-0", "ask", encode_ask(Ask("blob", spec, spans=((0, size + 1),))))
    made.say("dev-0", "ask", encode_ask(Ask("blob", spec, spans=((0, 1 << 39),))))
    made.say("dev-0", "ask", encode_ask(Ask("blob", spec)))
    assert [line["code"] for line in made.noted("refused")] == ["E-BLOB"] * 3
    made.say("dev-0", "ask", encode_ask(Ask("blob", spec, spans=((0, size),))))
    assert made.state.library.wants or made.state.library.due


def test_too_many_refusals_end_the_hearing_until_the_next_round(room):
    made = room(devices=("dev-0", "dev-1", "dev-2"))
    for number in range(30):
        made.say("mallory", "up", b"rubbish %d" % number)
    assert len(made.noted("refused", device="mallory")) == 20
    assert [line["round"] for line in made.noted("quarantined", device="mallory")] == [0]
    assert len(made.intruder.receipts) == 20
    for device in ("dev-0", "dev-1", "dev-2"):
        made.send(device, made.forger().update(device))
    assert made.state.number == 1
    made.say("mallory", "up", b"rubbish again")
    assert [line["round"] for line in made.noted("refused", device="mallory")][20:] == [1]


def test_round_does_not_wait_for_a_device_in_quarantine(room):
    made = room("devices.quorum=0.5", devices=("dev-0", "dev-1"))
    for number in range(20):
        made.say("dev-0", "up", b"rubbish %d" % number)
    assert made.outcome("dev-0") == "refused"
    made.say("dev-0", "state", encode_state(DeviceState("lost", 1)))
    assert not made.state.registry.devices["dev-0"].here
    made.say("dev-0", "state", encode_state(DeviceState("ready", 2)))
    made.say("dev-0", "state", b"rubbish")
    assert len(made.noted("refused", device="dev-0")) == 20
    made.send("dev-1", made.forger("dev-1").update("dev-1"))
    assert made.state.number == 1
    assert made.outcome("dev-0") == ""


def test_random_bytes_on_every_topic_raise_nothing(room):
    made, bits = room(), Bits.of("desk", 1)
    for number in range(400):
        leaf = ("state", "info", "ask", "up")[number % 4]
        made.say(f"m-{number // 16}", leaf, bits.words(1 + number % 12).tobytes())
    assert made.state.row.phase is Phase.REPORTING
    refused = made.noted("refused")
    assert len(refused) == 400
    assert {line["code"] for line in refused} <= {"E-FRAME", "E-SIZE"}


def test_peers_text_cannot_forge_a_line_of_the_log(room, capsys):
    made = room()
    plan = made.forger().plan
    reason = "no\n12:00:00\tevent=accepted\tdevice=mallory"
    made.say("dev-0", "ask", encode_ask(Ask("decline", run=plan.run, round=0, code="E-HOT", reason=reason)))
    log = capsys.readouterr().err
    assert "event=declined device=dev-0" in log
    assert not [line for line in log.splitlines() if "event=accepted" in line and "declined" not in line]
    assert made.outcome("dev-0") == "declined"


def test_declines_count_only_from_the_invited_and_only_once(room):
    made = room()
    plan = made.forger().plan
    for device, run, number in (("mallory", plan.run, 0), ("dev-0", "other", 0), ("dev-0", plan.run, 5)):
        made.say(device, "ask", encode_ask(Ask("decline", run=run, round=number, code="E-HOT")))
    assert not made.noted("declined")
    made.send("dev-0", made.forger().update("dev-0"))
    made.say("dev-0", "ask", encode_ask(Ask("decline", run=plan.run, round=0, code="E-HOT")))
    assert (made.outcome("dev-0"), made.noted("declined")) == ("accepted", [])


def test_word_of_a_device_counts_whatever_its_session_but_an_old_will_does_not(tmp_path):
    with open_home(tmp_path) as home:
        registry = Registry(home.database, "test")
        assert registry.heard_state("pi", DeviceState("ready", 7))
        assert not registry.heard_state("pi", DeviceState("lost", 6))
        assert registry.devices["pi"].here
        assert registry.heard_state("pi", DeviceState("ready", 1))
        assert registry.heard_state("pi", DeviceState("lost", 1))
        assert not registry.devices["pi"].here
