"""A live federation under attack ends with the model that it has without, and every refusal says why."""

from __future__ import annotations

import re
import socket
from collections import Counter
from pathlib import Path

import pytest

from coordinator.recipe import load_recipe
from tests.conftest import FAST
from tests.end_to_end.fleet import COORDINATOR, undisturbed_model
from tests.end_to_end.hostile_client import CODED, Intruder, attacks, forger
from tests.end_to_end.members import HeldWorker, drive, member, members
from wire.bits import Bits
from wire.frame import Kind, encode_frame
from wire.links.link import parse_link
from wire.links.mqtt import MqttTransport
from wire.messages.plan import encode_plan
from wire.messages.reports import Ask, Receipt, encode_ask, encode_receipt
from wire.pieces.chunks import encode_chunk
from wire.topics import Topics

HELD = "dev-2"
TOPICS = Topics("test")
NOWHERE = "ab" * 32
MOST_GROWTH_KB = 16 * 1024
REFUSED = re.compile(r"event=refused device=(\S+) round=\S+ code=(\S+)")


class Siege:
    """The federation, the device that keeps its rounds open, the intruder, and what it expects to be answered."""

    def __init__(self, fleet, agent, worker, intruder):
        self.fleet, self.agent, self.worker, self.intruder = fleet, agent, worker, intruder
        self.expected = []

    def step(self):
        self.agent.step(0.0)
        self.intruder.step(0.01)
        while self.intruder.step():
            pass

    def until(self, so, longest_s=60.0):
        drive(so, self.step, longest_s=longest_s, why=lambda: f"{self.missing()}\n{self.fleet.tails()}")

    def open_round(self, number):
        """Waits until the honest devices are through with a round, and the held one keeps it open."""
        self.until(lambda: all(self.accepted(device, number) for device in self.fleet.devices if device != HELD))
        self.until(lambda: self.agent.work is not None and self.agent.work.training)
        blobs = self.fleet.home / "runs" / self.fleet.run / "blobs"
        return forger(self.intruder.plans["dev-0"], self.fleet.recipe, blobs)

    def accepted(self, device, number):
        told = [r for to, r in self.intruder.receipts if (to, r.round, r.verdict) == (device, number, "accepted")]
        return bool(told) and (device, number) in self.intruder.seen

    def close_round(self, number):
        """Lets the held device send its update."""
        self.worker.held = False
        self.until(lambda: self.fleet.over or self.agent.standing.settled(self.fleet.run, number))
        self.worker.held = True

    def attack(self, device, update, code):
        self.expected.append((device, self.intruder.send_up(device, update), code))

    def say(self, device, leaf, payload, code, digest=""):
        said = self.intruder.say(device, leaf, payload)
        self.expected.append((device, digest or said, code))

    def missing(self):
        verdict = {"": "accepted"}
        return [
            (device, digest[:12], code)
            for device, digest, code in self.expected
            if (verdict.get(code, "refused"), code) not in self.intruder.verdicts(device, digest)
        ]

    def check_answered(self):
        self.until(lambda: not self.missing())


def rubbish(siege, make, number):
    """Says what no device would ever say."""
    say, plan = siege.say, make.plan
    say("mallory", "up", b"\xff" * 100, "E-SIZE", "ff" * 32)
    say("mallory", "up", b"hello", "E-FRAME")
    say("mallory", "up", bytes(900_000), "E-SIZE", "00" * 32)
    say("mallory", "up", encode_chunk(NOWHERE, 1 << 50, 0, b"x"), "E-SIZE", NOWHERE)
    say("mallory", "up", encode_chunk(NOWHERE, 9, 0, b""), "E-FRAME")
    say("mallory", "state", Bits.of("state", number).words(20).tobytes(), "E-FRAME")
    say("mallory", "state", encode_frame(Kind.STATE, {"state": "ready", "x": "y" * 5000}), "E-SIZE")
    say("mallory", "info", encode_frame(Kind.ASK, {"what": "blob"}), "E-FRAME")
    say("mallory", "ask", encode_frame(Kind.ASK, {"what": "money"}), "E-FRAME")
    say("mallory", "ask", encode_ask(Ask("blob", NOWHERE, spans=((7, 9), (1, 2)))), "E-FRAME")
    say("mallory", "ask", encode_ask(Ask("blob", NOWHERE, spans=((0, 9),))), "E-BLOB")
    say("mallory", "ask", encode_ask(Ask("blob", plan.spec, spans=((0, 1 << 39),))), "E-BLOB")
    say("mallory", "ask", encode_ask(Ask("update", "cd" * 32, plan.run, number + 7, 9)), "E-ROUND-CLOSED", "cd" * 32)
    siege.attack("mallory", make.update("mallory"), "E-NOT-INVITED")
    siege.attack("mallory", make.update("dev-0"), "E-NOT-INVITED")
    siege.attack("mallory", b"neither here nor there" * 9, "E-NOT-INVITED")
    siege.attack("never-seen", make.update("never-seen"), "E-NOT-INVITED")
    flood_the_broker(siege.fleet.broker.port)


def flood_the_broker(port):
    """Sends one packet that is larger than the broker takes: it drops whoever does that."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as link:
        body = b"\x00\x04MQTT\x05\x02\x00\x3c\x00" + b"\x00\x07too-big"
        link.sendall(bytes((0x10, len(body))) + body)
        assert link.recv(64)[:1] == b"\x20"
        topic = TOPICS.device("mallory", "up").encode()
        rest = len(topic).to_bytes(2, "big") + topic + b"\x00" + bytes(2 << 20)
        size, lengths = len(rest), []
        while size:
            lengths.append(size % 128 + (128 if size > 127 else 0))
            size //= 128
        try:
            link.sendall(b"\x30" + bytes(lengths) + rest)
            while link.recv(64):
                pass
        except (ConnectionError, BrokenPipeError):
            return


def lies(siege, make, names):
    """Sends wrong updates in the name of devices whose right ones are in."""
    for at, name in enumerate(names):
        device = f"dev-{at % 2}"
        update, code = attacks(make, device)[name]
        siege.attack(device, update, code)


def repeats(siege, make, number):
    """Sends again what was accepted, in this round and in the one before; and other bytes for the same."""
    seen = siege.intruder.seen
    siege.attack("dev-0", seen["dev-0", number], "")
    siege.attack("dev-1", seen["dev-1", number - 1], "")
    siege.attack("dev-0", make.update("dev-0", seconds=99.0), "E-DUPLICATE")
    siege.attack("dev-0", make.headed("dev-0", round=number - 1), "E-ROUND-CLOSED")
    siege.attack("dev-1", make.headed("dev-1", examples=11), "E-EXAMPLES")


def forgeries(siege, make, number):
    """Speaks to the devices as if it were the coordinator: they know its key."""
    digest = "ef" * 32
    for device in ("dev-0", "dev-1"):
        siege.intruder.say(device, "rcpt", encode_receipt(Receipt(digest, make.plan.run, number, "refused", "E-HOAX")))
        siege.intruder.say(device, "plan", encode_plan(make.plan))


def flood(siege):
    """Sends 5,000 tiny bad messages, and a payload in 5,000 pieces with a gap after each."""
    say, size = siege.intruder.say, 16_000
    for number in range(5000):
        say("flooder", ("up", "ask", "state", "info")[number % 4], b"%d" % number)
        say("gapper", "up", encode_chunk(NOWHERE, size, 2 * number, b"x"))
        if number % 50 == 0:
            siege.until(lambda: len(siege.intruder.unanswered) < 100)
    for leaf in ("up", "ask", "state", "info"):  # brokers keep the order of each filter, not of all
        siege.say("last", leaf, b"the last of " + leaf.encode(), "E-FRAME")
    siege.check_answered()


def peak_kb(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def noted(fleet, event):
    return [line for line in fleet.ledger() if line["event"] == event]


def check_books(siege):
    """The ledger, the log and the receipts tell the same story, code by code."""
    fleet = siege.fleet
    refused = {(line["device"], line["digest"]): line["code"] for line in noted(fleet, "refused")}
    for device, digest, code in siege.expected:
        assert refused.get((device, digest), "") == code, (device, digest, code)
    log = Counter(REFUSED.findall((fleet.logs / "coordinator.log").read_text()))
    assert log == Counter((line["device"], line["code"]) for line in noted(fleet, "refused"))
    told = {(to, r.digest, r.code) for to, r in siege.intruder.receipts if r.verdict == "refused"}
    assert {(line["device"], line["digest"], line["code"]) for line in noted(fleet, "refused")} <= told
    folded = [update for line in fleet.ledger() if line.get("phase") == "evaluation" for update in line["updates"]]
    assert len({update["digest"] for update in folded}) == len(folded) == 4 * 3
    assert not {update["digest"] for update in folded} & {digest for _, digest in refused}
    assert all(line["reason"] == "" for line in noted(fleet, "phase") if "reason" in line)


@pytest.mark.parametrize("coding", ["plain", "coded"])
@pytest.mark.parametrize("kind", ["mosquitto", "iotcore"])
def test_federation_under_attack_ends_as_if_there_were_none(kind, coding, tmp_path):
    coded = [CODED] if coding == "coded" else []
    recipe = load_recipe("echo", ["devices.goal=3", "rounds=4", 'model="vector-5000"', *coded])
    model = undisturbed_model(tmp_path / "undisturbed", recipe)
    with members(kind, tmp_path, recipe) as fleet:
        worker = HeldWorker(held=True)
        link = parse_link(fleet.broker.url)
        intruder = Intruder(MqttTransport(link, "intruder", chunk_bytes=1 << 20, backoff=FAST), TOPICS)
        intruder.listen()
        with member(fleet, HELD, worker) as agent:
            siege = Siege(fleet, agent, worker, intruder)
            for name in (COORDINATOR, "dev-0", "dev-1"):
                fleet.start(name)
            besiege(siege)
            siege.until(lambda: fleet.over)
            assert agent.standing.settled(fleet.run, 3)
        check_books(siege)
        assert fleet.ledger()[-1]["model"] == model
        for device in ("dev-0", "dev-1"):
            assert len(re.findall("event=bad-message .*code=E-SIGNATURE", fleet.tail(device, 10_000))) == 2
        intruder.transport.close()


def besiege(siege):
    """Round 0 passes in peace, so that there is something to repeat and to compare with."""
    fleet = siege.fleet
    siege.open_round(0)
    siege.close_round(0)
    before_kb = peak_kb(fleet.running[COORDINATOR])
    make = siege.open_round(1)
    names = sorted(attacks(make, "dev-0"))
    rubbish(siege, make, 1)
    lies(siege, make, names[: len(names) // 2])
    siege.check_answered()
    siege.close_round(1)
    make = siege.open_round(2)
    lies(siege, make, names[len(names) // 2 :])
    repeats(siege, make, 2)
    forgeries(siege, make, 2)
    siege.check_answered()
    flood(siege)
    assert len([line for line in noted(fleet, "refused") if line["device"] == "flooder"]) == 20
    assert [line["round"] for line in noted(fleet, "quarantined") if line["device"] == "flooder"] == [2]
    assert [line["code"] for line in noted(fleet, "refused") if line["device"] == "gapper"] == ["E-NOT-INVITED"]
    siege.close_round(2)
    make = siege.open_round(3)
    siege.say("flooder", "up", b"once more", "E-FRAME")
    siege.check_answered()
    assert peak_kb(fleet.running[COORDINATOR]) - before_kb < MOST_GROWTH_KB
    siege.close_round(3)
