"""The small messages around an update: what a device says of itself, what it asks for, what it is answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from wire.errors import WireError
from wire.frame import Frame, Kind, decode_frame, encode_frame
from wire.messages.fields import choice_field, digest_field, id_field, int_field, text_field
from wire.messages.plan import MAX_BYTES, MAX_ROUND

__all__ = [
    "STATES",
    "VERDICTS",
    "Ask",
    "DeviceState",
    "Receipt",
    "Span",
    "decode_ask",
    "decode_state",
    "encode_ask",
    "encode_receipt",
    "encode_state",
    "read_receipt",
]

Span = tuple[int, int]

STATES = ("init", "ready", "idle", "fetching", "training", "uploading", "disconnected", "lost")
VERDICTS = ("accepted", "refused", "missing")
_MOST_SPANS = 1024
_MOST_REASON = 400


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What a device does now. `session` grows with every start, so that a late will cannot mark a new session lost."""

    state: str
    session: int
    run: str = ""
    round: int = -1
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """A device wants something: the bytes `spans` of blob `digest`, or to know what became of its update `digest`.

    With what = "decline" it will not take part in the round, and says why; `done` is the newest round of this run that
    it is done with, where that is why. `piece_bytes` is the most that a piece of the blob should hold, 0 if any size
    will do.
    """

    what: str
    digest: str = ""
    run: str = ""
    round: int = -1
    total: int = 0
    spans: tuple[Span, ...] = ()
    piece_bytes: int = 0
    code: str = ""
    reason: str = ""
    done: int = -1


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of an update. "missing" names the byte ranges that have not arrived."""

    digest: str
    run: str
    round: int
    verdict: str
    code: str = ""
    reason: str = ""
    spans: tuple[Span, ...] = ()


def encode_state(state: DeviceState) -> bytes:
    """Returns the state as a frame."""
    return encode_frame(Kind.STATE, _spare(state, DeviceState("", 0)))


def decode_state(data: bytes) -> DeviceState:
    """Returns the state in a frame."""
    header = _full(decode_frame(data, Kind.STATE, 4096), DeviceState("", 0))
    return DeviceState(
        state=choice_field(header, "state", STATES),
        session=int_field(header, "session", 0, 1 << 53),
        run=_run(header),
        round=int_field(header, "round", -1, MAX_ROUND),
        code=text_field(header, "code", 40),
        reason=text_field(header, "reason", _MOST_REASON),
    )


def encode_ask(ask: Ask) -> bytes:
    """Returns the question as a frame; what has its ordinary value is left out."""
    return encode_frame(Kind.ASK, _spare(ask, Ask("")))


def decode_ask(data: bytes) -> Ask:
    """Returns the question in a frame."""
    header = _full(decode_frame(data, Kind.ASK, 64 * 1024), Ask(""))
    return Ask(
        what=choice_field(header, "what", ("blob", "update", "decline")),
        digest=digest_field(header, "digest", empty=True),
        run=_run(header),
        round=int_field(header, "round", -1, MAX_ROUND),
        total=int_field(header, "total", 0, MAX_BYTES),
        spans=_spans(header.get("spans")),
        piece_bytes=int_field(header, "piece_bytes", 0, MAX_BYTES),
        code=text_field(header, "code", 40),
        reason=text_field(header, "reason", _MOST_REASON),
        done=int_field(header, "done", -1, MAX_ROUND),
    )


def encode_receipt(receipt: Receipt, sign: Callable[[bytes], bytes] | None = None) -> bytes:
    """Returns the receipt as a frame."""
    return encode_frame(Kind.RECEIPT, _spare(receipt, Receipt("", "", 0, "")), sign=sign)


def read_receipt(frame: Frame) -> Receipt:
    """Returns the receipt in a decoded frame, every field checked."""
    header = _full(frame, Receipt("", "", 0, ""))
    return Receipt(
        digest=digest_field(header, "digest"),
        run=id_field(header, "run"),
        round=int_field(header, "round", 0, MAX_ROUND),
        verdict=choice_field(header, "verdict", VERDICTS),
        code=text_field(header, "code", 40),
        reason=text_field(header, "reason", _MOST_REASON),
        spans=_spans(header.get("spans")),
    )


def _spare(message: Any, ordinary: Any) -> dict[str, Any]:
    header, plain = _table(message), _table(ordinary)
    header["reason"] = header["reason"][:_MOST_REASON]  # a long reason must not cost the whole message
    return {name: value for name, value in header.items() if value != plain[name]}


def _full(frame: Frame, ordinary: Any) -> dict[str, Any]:
    if len(frame.payload):
        raise WireError(f"a {frame.kind.name.lower()} has no payload, this one has {len(frame.payload)} bytes")
    return {**_table(ordinary), **frame.header}


def _table(message: Any) -> dict[str, Any]:
    """Returns a message's fields; `asdict` would copy each of their values."""
    return {item.name: getattr(message, item.name) for item in fields(message)}


def _run(header: Mapping[str, Any]) -> str:
    return "" if header["run"] == "" else id_field(header, "run")


def _spans(value: object) -> tuple[Span, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MOST_SPANS:
        raise WireError(f"field 'spans' is not a list of at most {_MOST_SPANS} ranges")
    spans, past = [], -1
    for item in value:
        if not (isinstance(item, list) and len(item) == 2 and all(type(side) is int for side in item)):
            raise WireError("field 'spans' holds something that is not [start, end]")
        start, end = item
        if not past < start < end <= MAX_BYTES:
            raise WireError(f"range [{start}, {end}] is empty, out of order or out of range")
        spans.append((start, end))
        past = end
    return tuple(spans)
