"""A client of the broker that means harm: it forges updates, sends them under any name, and notes the answers."""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_agent.training.echo import echo
from models.archs import spec_of
from models.init import initial
from models.tasks import task
from tests.wire.hostile.mutations import resealed, sealed
from wire.errors import WireError
from wire.frame import Kind, decode_frame
from wire.messages.blob import read_snapshot
from wire.messages.plan import RoundPlan, decode_plan
from wire.messages.reports import Receipt, read_receipt
from wire.messages.update import Update, UpdateHeader, encode_update
from wire.params import Params, delta
from wire.pieces.chunks import decode_chunk, encode_chunk
from wire.spec import ModelSpec
from wire.stages.pack import pack_symbols, width_of
from wire.topics import Topics
from wire.transport import Message, Sent, Transport, Unsent, Up

__all__ = ["CODED", "Forger", "Intruder", "Record", "attacks", "forger", "whole_piece"]

CODED = 'uplink.stages=[{stage="topk", share=0.25}, {stage="levels", levels=7}]'
_U32 = struct.Struct("<I")


@dataclass(frozen=True)
class Forger:
    """Makes what a device would send for this plan, and what it should not."""

    plan: RoundPlan
    spec: ModelSpec
    base: Params

    def update(self, device: str, **metrics: float | str) -> bytes:
        """Returns the device's right update, with these measurements."""
        plan = self.plan
        params = echo(self.base, (plan.seed, plan.round, device))
        tensors = delta(params, self.base) if plan.kind == "delta" else params
        header = UpdateHeader(plan.run, plan.round, device, plan.base, plan.kind, 1, metrics)
        return encode_update(Update(header, tensors), plan, self.spec, params)

    def headed(self, device: str, /, **fields: Any) -> bytes:
        """Returns the right update with other fields in its header."""
        return resealed(self.update(device), lambda header: header.update(fields))

    def carrying(self, device: str, change: Callable[[bytes], bytes]) -> bytes:
        """Returns the right update with other tensors."""
        frame = decode_frame(self.update(device), Kind.UPDATE)
        at = 20 + struct.unpack_from("<I", frame.body, 8)[0]
        return sealed(Kind.UPDATE, bytes(frame.body[20:at]), change(bytes(frame.payload)))


def forger(plan: RoundPlan, recipe: Any, blobs: Path) -> Forger:
    """Returns the forger for a plan; it reads the base from the coordinator's folder of blobs."""
    goal = task(recipe.task)
    spec = spec_of(recipe.model or goal.arch, goal.input, goal.outputs, recipe.seed, recipe.freeze)
    if plan.base == plan.initial:
        return Forger(plan, spec, initial(spec))
    ref = next(ref for ref in plan.blobs if ref.target == plan.base and not ref.source)
    return Forger(plan, spec, read_snapshot((blobs / ref.digest).read_bytes(), plan.base, spec))


@dataclass
class Record:
    """One record of a payload, taken apart: see wire/stages/chain.py."""

    count: int
    sides: list[bytes]
    body: bytes

    @classmethod
    def of(cls, payload: bytes, stages: int) -> Record:
        count, at, sides = _U32.unpack_from(payload)[0], 4, []
        for _ in range(stages + 1):
            size = _U32.unpack_from(payload, at)[0]
            sides.append(payload[at + 4 : at + 4 + size])
            at += 4 + size
        return cls(count, sides, payload[at + 4 :])

    def bytes(self) -> bytes:
        parts = [_U32.pack(self.count)]
        for side in (*self.sides, self.body):
            parts += [_U32.pack(len(side)), side]
        return b"".join(parts)


def attacks(make: Forger, device: str) -> dict[str, tuple[bytes, str]]:
    """Returns wrong updates of an invited device, by name, with the code that each must get."""
    right, coded = make.update(device), bool(make.plan.stages)
    flipped = bytearray(right)
    flipped[-20] ^= 4
    text, payload = _parts(right)
    found = {
        "header of another device": (make.headed(device, device="someone-else"), "E-IDENTITY"),
        "far too long": (right + bytes(64_000), "E-SIZE"),
        "not a frame": (b"x" * 200, "E-FRAME"),
        "cut off": (right[:-7], "E-FRAME"),
        "another kind of frame": (sealed(Kind.BLOB, text, payload), "E-FRAME"),
        "header without a base": (resealed(right, lambda header: header.pop("base")), "E-FRAME"),
        "measurement that is a list": (make.headed(device, metrics={"seconds": [1]}), "E-FRAME"),
        "kind that does not exist": (make.headed(device, kind="gradient"), "E-FRAME"),
        "broken checksum": (bytes(flipped), "E-CRC"),
        "protocol of tomorrow": (sealed(Kind.UPDATE, text, payload, version=2), "E-VERSION"),
        "another run": (make.headed(device, run="another-run"), "E-ROUND-CLOSED"),
        "round to come": (make.headed(device, round=make.plan.round + 1), "E-ROUND-CLOSED"),
        "another base": (make.headed(device, base="0" * 64), "E-BASE"),
        "weights for a delta": (make.headed(device, kind="weights"), "E-KIND"),
        "no tensors": (make.carrying(device, lambda _: b""), "E-TENSORS"),
        "a byte too many": (make.carrying(device, lambda old: old + b"\0"), "E-TENSORS"),
        "another count": (make.carrying(device, lambda old: _U32.pack(3) + old[4:]), "E-SHAPE"),
        "no examples": (make.headed(device, examples=0), "E-EXAMPLES"),
        "less than no examples": (make.headed(device, examples=-5), "E-EXAMPLES"),
        "more examples than anybody has": (make.headed(device, examples=1 << 40), "E-EXAMPLES"),
    }
    return found | (_coded(make, device) if coded else _plain(make, device))


def _parts(update: bytes) -> tuple[bytes, bytes]:
    at = 20 + struct.unpack_from("<I", update, 8)[0]
    return update[20:at], update[at:-4]


def _plain(make: Forger, device: str) -> dict[str, tuple[bytes, str]]:
    def with_value(value: float) -> bytes:
        return make.carrying(device, lambda old: old[:-4] + struct.pack("<f", value))

    def shorter(old: bytes) -> bytes:
        record = Record.of(old, 0)
        return replace(record, body=record.body[:-4]).bytes()

    return {
        "not a number": (with_value(float("nan")), "E-NONFINITE"),
        "infinite": (with_value(float("-inf")), "E-NONFINITE"),
        "finite and huge": (with_value(-1e38), "E-MAGNITUDE"),
        "a value too few": (make.carrying(device, shorter), "E-SHAPE"),
    }


def _coded(make: Forger, device: str) -> dict[str, tuple[bytes, str]]:
    def edited(**change: Callable[[Record], Any]) -> bytes:
        def edit(old: bytes) -> bytes:
            record = Record.of(old, 2)
            for name, new in change.items():
                if name == "body":
                    record.body = new(record)
                else:
                    record.sides[int(name[-1])] = new(record)
            return record.bytes()

        return make.carrying(device, edit)

    def scaled(scale: float) -> bytes:
        return edited(side1=lambda record: record.sides[1][:2] + struct.pack("<f", scale))

    n = make.spec.count
    k = max(1, -(-n // 4))
    rising = np.arange(k, dtype=np.uint32)
    falling, beyond = rising[::-1].copy(), np.append(rising[1:], np.uint32((1 << width_of(n)) - 1))

    def placed(positions: Any) -> bytes:
        return edited(side0=lambda _: b"\1" + pack_symbols(positions, width_of(n)).tobytes())

    return {
        "another level count": (edited(side1=lambda record: b"\x0f\0" + record.sides[1][2:]), "E-LEVELS"),
        "symbol outside the alphabet": (edited(body=lambda record: b"\xff" * len(record.body)), "E-LEVELS"),
        "scale zero": (scaled(0.0), "E-SCALE"),
        "scale below zero": (scaled(-1.0), "E-SCALE"),
        "scale that is no number": (scaled(float("nan")), "E-SCALE"),
        "scale without end": (scaled(float("inf")), "E-SCALE"),
        "scale beyond belief": (scaled(1e38), "E-MAGNITUDE"),
        "falling positions": (placed(falling), "E-INDEX"),
        "position past the end": (placed(beyond), "E-INDEX"),
        "positions in no known coding": (edited(side0=lambda record: b"\x09" + record.sides[0][1:]), "E-INDEX"),
        "no positions": (edited(side0=lambda _: b""), "E-INDEX"),
    }


def whole_piece(data: bytes) -> tuple[str, bytes]:
    """Returns the digest of an update and the one piece that holds all of it."""
    digest = hashlib.sha256(data).hexdigest()
    return digest, encode_chunk(digest, len(data), 0, data)


@dataclass
class Intruder:
    """Listens to everything, and publishes under any name: a broker without an ACL does not mind."""

    transport: Transport
    topics: Topics
    plans: dict[str, RoundPlan] = field(default_factory=dict)
    seen: dict[tuple[str, int], bytes] = field(default_factory=dict)
    receipts: list[tuple[str, Receipt]] = field(default_factory=list)
    unanswered: set[int] = field(default_factory=set)

    def listen(self) -> None:
        while not isinstance(self.transport.receive(1.0), Up):
            pass
        self.transport.subscribe(*(self.topics.device("+", leaf) for leaf in ("plan", "rcpt", "up")))

    def step(self, wait_s: float = 0.0) -> bool:
        event = self.transport.receive(wait_s)
        if isinstance(event, Message):
            self._note(*self.topics.split(event.topic), event.payload)
        elif isinstance(event, Sent | Unsent):
            self.unanswered.discard(event.token)
        return event is not None

    def say(self, device: str, leaf: str, payload: bytes) -> str:
        """Publishes and returns the digest by which the payload is refused if it cannot be read at all."""
        self.unanswered.add(self.transport.publish(self.topics.device(device, leaf), payload))
        return hashlib.sha256(payload).hexdigest()

    def send_up(self, device: str, update: bytes) -> str:
        """Sends a whole update in one piece and returns its digest."""
        digest, piece = whole_piece(update)
        self.say(device, "up", piece)
        return digest

    def flush(self, longest_s: float = 60.0) -> None:
        """Waits until the broker has taken everything."""
        ends_s = time.monotonic() + longest_s
        while self.unanswered:
            self.step(0.1)
            assert time.monotonic() < ends_s, f"{len(self.unanswered)} messages not taken"

    def verdicts(self, device: str, digest: str) -> set[tuple[str, str]]:
        return {(r.verdict, r.code) for to, r in self.receipts if (to, r.digest) == (device, digest)}

    def _note(self, device: str, leaf: str, payload: bytes) -> None:
        if leaf == "rcpt":
            self.receipts.append((device, read_receipt(decode_frame(payload, Kind.RECEIPT))))
        elif leaf == "plan" and payload:
            self.plans[device] = decode_plan(payload)
        elif leaf == "up" and device in self.plans:
            with suppress(WireError):  # its own rubbish comes by here too
                chunk = decode_chunk(payload, len(payload))
                if len(chunk.data) == chunk.total:
                    self.seen.setdefault((device, self.plans[device].round), bytes(chunk.data))
