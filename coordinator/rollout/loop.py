"""The loop of one roll-out: waits for one event, reads it, and moves the roll-out on as far as it goes.

Every move is in the database before anybody is told of it; a new loop over the same home goes on where the old one
ended. Offers are retained, and are said again over every new link.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from coordinator.post import LONGEST_WAIT_S, Post
from coordinator.rollout.book import RolloutBook
from coordinator.rollout.stages import STAGES, Rollout, hear, obey, proceed
from coordinator.state.registry import Registry
from wire.errors import StateError, WireError
from wire.events import log_event
from wire.frame import Kind, decode_frame
from wire.messages.reports import decode_ask, decode_state
from wire.messages.rollout import ModelReport, Offer, decode_model_report, encode_offer
from wire.transport import Event, Message, Sent, Unsent, Up

__all__ = ["RolloutLoop"]

_LOOK_S = 1.0
_MOST_REFUSALS = 20
_INFO_BYTES = 4096


@dataclass
class RolloutLoop:
    """One roll-out over one transport. `offer` is what every device is offered, `blobs` what they may ask for.

    `said` are devices whose offer was published over this link, `telling` and `clearing` the messages of which the
    broker has not said yet that it took them: offers, and (roll-out, device) of what is withdrawn. `pinned` are reports
    of devices whose owner pinned a model: they say so once, before they are offered anything.
    """

    rollout: Rollout
    book: RolloutBook
    post: Post
    registry: Registry
    clock: Callable[[], float]
    sign: Callable[[bytes], bytes]
    session: int
    offer: Offer
    blobs: frozenset[str]
    said: set[str] = field(default_factory=set)
    telling: dict[int, str] = field(default_factory=dict)
    clearing: dict[int, tuple[str, str]] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    pinned: dict[str, ModelReport] = field(default_factory=dict)
    looked_s: float = float("-inf")

    @property
    def fleet(self) -> str:
        """Returns the fleet's name."""
        return self.post.topics.fleet

    @property
    def ended(self) -> bool:
        """Tells whether there is nothing to do until a person decides, and no offer is left that should not be."""
        if self.rollout.over:
            return not self.book.withdrawals(self.fleet)
        return self.rollout.status == "held"

    def step(self, longest_s: float = LONGEST_WAIT_S) -> bool:
        """Waits for an event at most until something is due, and acts; tells whether there was an event."""
        try:
            event = self.post.transport.receive(min(longest_s, _LOOK_S, self.post.due_s(self.clock())))
            if event is not None:
                self._handle(event)
            self._look_around()
            self._proceed()
            self._tell()
            self.post.send_pieces(self.clock())
        except (OSError, sqlite3.Error) as exc:
            remedy = "see that the disk has room and may be written; `bitfleet rollout resume` then goes on"
            raise StateError(f"the roll-out's files cannot be used: {exc}", remedy=remedy) from exc
        return event is not None

    def _proceed(self) -> None:
        self._move(proceed(self.rollout, self.clock()))
        for device, report in self.pinned.items():
            self._move(hear(self.rollout, device, report))

    def _handle(self, event: Event) -> None:
        if isinstance(event, Message):
            self._read(event)
        elif isinstance(event, Up):
            self._begin_link()
            self.post.greet(event, self.session, ("state", "info", "ask", "model"))
            log_event("link-up", payload_bytes=event.payload_bytes)
        else:
            self.post.note(event)
            if isinstance(event, Sent | Unsent):
                self._answered(event)

    def _read(self, message: Message) -> None:
        """Takes one message; nothing that it holds raises."""
        place = self.post.topics.split(message.topic)
        if place is None or not message.payload:
            return
        device, leaf = place
        if not message.retained:
            self.post.accounts.heard(device, message.topic, len(message.payload))
        if leaf not in _READERS or self.refusals[device] >= _MOST_REFUSALS:
            return
        try:
            _READERS[leaf](self, device, message.payload)
        except WireError as exc:
            self.refusals[device] += 1
            log_event("refused", device=device, topic=leaf, code=exc.code, reason=exc.message)

    def _heard_state(self, device: str, payload: bytes) -> None:
        self.registry.heard_state(device, decode_state(payload))

    def _heard_info(self, device: str, payload: bytes) -> None:
        self.registry.heard_info(device, decode_frame(payload, Kind.INFO, _INFO_BYTES).header)

    def _heard_model(self, device: str, payload: bytes) -> None:
        report = decode_model_report(payload)
        self.pinned.pop(device, None)
        if report.phase == "pinned" and any(member.device == device for member in self.rollout.members):
            self.pinned[device] = report
        self._move(hear(self.rollout, device, report))

    def _asked(self, device: str, payload: bytes) -> None:
        """Serves blobs of this roll-out to devices that it was offered to; every other question waits for a run."""
        ask = decode_ask(payload)
        if ask.what != "blob" or ask.digest not in self.blobs or not self._offered(device):
            return
        if not self.post.library.ask(ask.digest, ask.spans, device, self.clock(), ask.piece_bytes):
            raise WireError(f"blob {ask.digest[:12]} has no such bytes", code="E-BLOB")

    def _offered(self, device: str) -> bool:
        return any(member.device == device and member.stage >= 0 for member in self.rollout.members)

    def _look_around(self) -> None:
        """Reads once a second what another process wishes, and clears what the broker should keep no more."""
        now_s = self.clock()
        if now_s - self.looked_s < _LOOK_S:
            return
        self.looked_s = now_s
        wish = self.book.pending_wish(self.rollout.name)
        if wish:
            log_event("wish", rollout=self.rollout.name, wish=wish)
            self._move(obey(self.rollout, wish, now_s), wish)
        if self.post.online:
            self._withdraw()

    def _move(self, after: Rollout, wish: str = "") -> None:
        """Books a move and then makes it."""
        before = self.rollout
        if after == before and not wish:
            return
        turned = (after.status, after.stage) != (before.status, before.stage)
        with self.book.database.change():
            self.registry.save()
            self.book.save(before, after)
            if wish:
                self.book.granted(after.name, wish)
            if turned:
                self.book.traffic(after.name, *self.post.accounts.take())
        self.rollout = after
        self.looked_s = float("-inf") if turned else self.looked_s
        _log(before, after)

    def _tell(self) -> None:
        """Makes the offers that are out, each once over a link."""
        for member in self.rollout.members if self.post.online and not self.rollout.over else ():
            if member.stage >= 0 and not member.outcome and member.device not in self.said:
                token = self.post.say(member.device, "offer", encode_offer(self.offer, self.sign), retain=True)
                if token is not None:
                    self.said.add(member.device)
                    self.telling[token] = member.device

    def _withdraw(self) -> None:
        """Takes back what is not to be had any more: from devices that had not begun when a roll-out ended."""
        for name, device in self.book.withdrawals(self.fleet):
            if (name, device) not in self.clearing.values():
                token = self.post.say(device, "offer", b"", retain=True)
                if token is not None:
                    self.clearing[token] = name, device

    def _answered(self, event: Sent | Unsent) -> None:
        """What the broker did not take is said again; an offer is withdrawn when it has taken the empty message."""
        device, cleared = self.telling.pop(event.token, ""), self.clearing.pop(event.token, None)
        if isinstance(event, Unsent):
            self.said.discard(device)
        elif cleared is not None:
            with self.book.database.change():
                self.book.withdrawn(*cleared)

    def _begin_link(self) -> None:
        self.said.clear()
        self.telling.clear()
        self.clearing.clear()
        self.looked_s = float("-inf")


_READERS = {
    "state": RolloutLoop._heard_state,
    "info": RolloutLoop._heard_info,
    "ask": RolloutLoop._asked,
    "model": RolloutLoop._heard_model,
}


def _log(before: Rollout, after: Rollout) -> None:
    """Writes a line for every change that a person may want to see."""
    if (before.status, before.stage) != (after.status, after.stage):
        stage = STAGES[after.stage]
        log_event("rollout", name=after.name, status=after.status, stage=stage, reason=after.reason or "none")
    for old, new in zip(before.members, after.members, strict=True):
        if (old.stage, old.outcome, old.late) != (new.stage, new.outcome, new.late):
            outcome = new.outcome or ("late" if new.late else "offered")
            code = new.report.code if new.report else ""
            variant = new.report.variant if new.report else ""
            log_event(
                "device-model", device=new.device, outcome=outcome, variant=variant or "none", code=code or "none"
            )
