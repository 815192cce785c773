"""Where messages from devices are read: states, questions and pieces of updates. Every refusal is answered and kept."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.rounds.accept import CONTENT_CODES, RoundView, check_update
from coordinator.rounds.book import Counted
from coordinator.rounds.intake import Intake
from coordinator.rounds.phases import Phase
from wire.errors import BitfleetError, Refused
from wire.events import log_event
from wire.frame import Kind, decode_frame
from wire.messages.blob import digest_bytes
from wire.messages.reports import Ask, Receipt, decode_ask, decode_state, encode_receipt
from wire.messages.update import UpdateHeader
from wire.pieces.assembly import move_whole
from wire.pieces.chunks import decode_chunk
from wire.transport import Message

if TYPE_CHECKING:
    from coordinator.federation import Federation

__all__ = ["Desk"]

_MOST_REFUSALS = 20
_INFO_BYTES = 4096


@dataclass
class Desk:
    """Reads for a federation. A device that is refused too often in one round is not listened to until the next."""

    office: Federation
    intake: Intake = field(init=False)
    refusals: Counter[tuple[int, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.intake = Intake(self.office.planner.folder / "inbox")

    def read(self, message: Message) -> None:
        """Takes one message; nothing that it holds raises."""
        place = self.office.topics.split(message.topic)
        if place is None or not message.payload:
            return
        device, leaf = place
        self.office.accounts.heard(device, message.topic, len(message.payload))
        if self.refusals[self._round, device] >= _MOST_REFUSALS:
            return
        try:
            _READERS[leaf](self, device, message.payload)
        except BitfleetError as exc:
            self._refuse(device, self._round, digest_bytes(message.payload), exc)

    @property
    def _round(self) -> int:
        return self.office.row.number if self.office.row else 0

    def _state(self, device: str, payload: bytes) -> None:
        state = decode_state(payload)
        known = self.office.registry.devices.get(device)
        counts = self.office.registry.heard_state(device, state)
        if counts and (known is None or known.state.state != state.state):
            log_event("device", id=device, state=state.state, code=state.code or "none")

    def _info(self, device: str, payload: bytes) -> None:
        frame = decode_frame(payload, Kind.INFO, _INFO_BYTES)
        self.office.registry.heard_info(device, json.loads(json.dumps(frame.header)))

    def _ask(self, device: str, payload: bytes) -> None:
        ask = decode_ask(payload)
        if ask.what == "blob":
            if not self.office.library.ask(ask.digest, ask.spans, device, self.office.clock()):
                log_event("no-such-blob", device=device, digest=ask.digest[:12])
        elif ask.what == "decline":
            self._declined(device, ask)
        else:
            self._what_became(device, ask)

    def _declined(self, device: str, ask: Ask) -> None:
        office = self.office
        if ask.run != office.run or office.book.outcomes(ask.round).get(device) != "":
            return
        with office.database.change():
            office.book.decline(ask.round, device, ask.code, ask.reason)
        log_event("declined", device=device, round=ask.round, code=ask.code, reason=ask.reason)

    def _what_became(self, device: str, ask: Ask) -> None:
        """Answers what became of an update: its receipt, or what is missing of it, or that it is of no use."""
        receipt = self.office.book.settled(device, ask.digest)
        if receipt is None and not self._takes(ask.run, ask.round):
            if self._waits(ask.run, ask.round):
                return
            reason = f"round {ask.round} of run {ask.run} takes no updates"
            self._refuse(device, ask.round, ask.digest, Refused(reason, code="E-ROUND-CLOSED"), ask.run)
            return
        if receipt is None:
            spans = self.intake.missing(device, ask)
            receipt = Receipt(ask.digest, ask.run, ask.round, "missing", spans=spans)
        self._answer(device, receipt)

    def _piece(self, device: str, payload: bytes) -> None:
        office, most = self.office, self.office.planner.most_update_bytes
        chunk = decode_chunk(payload, most)
        receipt = office.book.settled(device, chunk.digest)
        if receipt is not None:
            self._answer(device, receipt)
            return
        if office.planner.recipe.devices.late == "fold" and not self._collecting:
            return  # it may be a late update that the next round takes: the device will ask again
        whole = self.intake.take(device, chunk)
        if whole is not None:
            try:
                self._judge(device, chunk.digest, whole, most)
            except BitfleetError as exc:
                self._refuse(device, self._round, chunk.digest, exc)
            finally:
                whole.unlink(missing_ok=True)

    def _judge(self, device: str, digest: str, whole: Path, most: int) -> None:
        """Accepts a whole update: checked, in the journal, in the database, and only then receipted."""
        office = self.office
        data = whole.read_bytes()
        header = check_update(data, device, most, lambda run, number: self._view(run, number, device))
        if office.book.has_update(header.round, device):
            raise Refused("another update of this round was accepted before", code="E-DUPLICATE")
        into = self._round
        counted = Counted(device, header.round, digest, len(data), header.examples)
        path = office.planner.journal(into, counted)
        path.parent.mkdir(parents=True, exist_ok=True)
        move_whole(whole, path)
        self._enter(header, digest, len(data), into)
        self._answer(device, Receipt(digest, header.run, header.round, "accepted"))

    def _enter(self, header: UpdateHeader, digest: str, size: int, into: int) -> None:
        with self.office.database.change():
            self.office.registry.save()
            self.office.book.accept(header, digest, size, into)
        log_event("accepted", device=header.device, round=header.round, bytes=size, into=into)

    def _view(self, run: str, number: int, device: str) -> RoundView | None:
        office = self.office
        plan = office.plan_of(number) if run == office.run else None
        if plan is None:
            return None
        return RoundView(
            plan=plan,
            spec=office.planner.spec,
            takes=self._takes(run, number),
            invited=device in office.book.outcomes(number),
            usual=office.book.most_examples(device),
            max_examples=office.planner.recipe.devices.max_examples,
        )

    @property
    def _collecting(self) -> bool:
        return self.office.row is not None and self.office.row.phase is Phase.REPORTING

    def _takes(self, run: str, number: int) -> bool:
        if run != self.office.run or not self._collecting:
            return False
        return number == self._round or self._late_welcome(number)

    def _waits(self, run: str, number: int) -> bool:
        """Tells whether a late update may still be taken by the next round that collects."""
        return run == self.office.run and not self.office.over and self._late_welcome(number)

    def _late_welcome(self, number: int) -> bool:
        want = self.office.planner.recipe.devices
        return want.late == "fold" and 0 <= self._round - number <= want.max_staleness

    def _refuse(self, device: str, number: int, digest: str, exc: BitfleetError, run: str = "") -> None:
        office = self.office
        self.refusals[self._round, device] += 1
        with office.database.change():
            office.book.refuse(number, device, digest, exc.code, exc.message)
            if exc.code in CONTENT_CODES and office.book.outcomes(self._round).get(device) == "":
                office.book.disregard(self._round, device)
            if self.refusals[self._round, device] == _MOST_REFUSALS:
                office.database.note("quarantined", office.run, self._round, device, refusals=_MOST_REFUSALS)
        log_event("refused", device=device, round=number, code=exc.code, reason=exc.message)
        receipt = Receipt(digest, run or office.run, max(0, number), "refused", exc.code, exc.message[:400])
        self._answer(device, receipt)

    def _answer(self, device: str, receipt: Receipt) -> None:
        data = encode_receipt(receipt, self.office.sign)
        self.office.say(self.office.topics.device(device, "rcpt"), data, device)


_READERS = {"state": Desk._state, "info": Desk._info, "ask": Desk._ask, "up": Desk._piece}
