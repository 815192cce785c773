"""Where messages from devices are read: states, questions and pieces of updates. Every refusal is answered and kept."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from coordinator.rounds.accept import CONTENT_CODES, RoundView, check_update
from coordinator.rounds.book import Counted
from coordinator.rounds.intake import Intake
from coordinator.rounds.phases import Phase
from coordinator.run_state import RunState
from coordinator.state.allowance import Allowance, admits
from wire.errors import BitfleetError, Refused, StateError, WireError
from wire.events import log_event
from wire.frame import peek_header
from wire.messages.blob import digest_bytes
from wire.messages.reports import Ask, Receipt, decode_ask, decode_state, encode_receipt
from wire.messages.update import MAX_HEADER_BYTES, UpdateHeader
from wire.pieces.assembly import make_folder, move_whole
from wire.pieces.chunks import HEADER_BYTES, announced_bytes, decode_chunk
from wire.transport import Message

__all__ = ["Desk"]

_MOST_REFUSALS = 20
_MOST_STATE_LINES = 40
_DIGEST_BYTES = 32


@dataclass
class Desk:
    """Reads for a run. A device that is refused too often in one round is not listened to until the next.

    `asks` is what a device may ask, `lines` how often its states may fill the log.
    """

    state: RunState
    intake: Intake = field(init=False)
    refusals: Counter[tuple[tuple[int, bool], str]] = field(default_factory=Counter)
    asks: Allowance = field(default_factory=Allowance)
    lines: Allowance = field(default_factory=lambda: Allowance(_MOST_STATE_LINES))

    def __post_init__(self) -> None:
        self.intake = Intake(self.state.planner.folder / "inbox", durable=self.state.planner.durable)

    def read(self, message: Message) -> None:
        """Takes one message; nothing that it holds raises."""
        place = self.state.topics.split(message.topic)
        if place is None or place[1] not in _READERS or not message.payload:
            return
        device, leaf = place
        if not message.retained:  # the broker says it again; the device sent it long ago
            self.state.accounts.heard(device, message.topic, len(message.payload))
        shut = self._shut(device)
        if shut and leaf in ("ask", "up"):
            return
        try:
            _READERS[leaf](self, device, message.payload)
        except StateError:
            raise  # the fault is here, not the device's
        except BitfleetError as exc:
            if not shut:
                self._refuse(device, self.state.number, digest_bytes(message.payload), exc)
        except OSError as exc:
            self.intake.forget(device)
            log_event("disk", device=device, reason=str(exc))  # no answer: the device will ask again

    def tidy(self) -> None:
        """Forgets the pieces and the refusals of rounds that are closed."""
        number, now = self.state.number, self._spell
        self.intake.keep_only(lambda device: self._welcome(device, number - 1))
        self.refusals = Counter({key: count for key, count in self.refusals.items() if key[0] == now})

    def _heard_state(self, device: str, payload: bytes) -> None:
        said = decode_state(payload)
        known = self.state.registry.devices.get(device)
        counts = self.state.registry.heard_state(device, said)
        if not counts or (known is not None and known.state.state == said.state) or self._shut(device):
            return
        if not self.lines.excess(device, self.state.clock()):
            log_event("device", id=device, state=said.state, code=said.code or "none")

    def _shut(self, device: str) -> bool:
        """Tells whether a device is not listened to in this round any more."""
        return self.refusals[self._spell, device] >= _MOST_REFUSALS

    @property
    def _spell(self) -> tuple[int, bool]:
        """Returns what refusals are counted by: the round, and whether it selects yet, which may take days."""
        row = self.state.row
        return self.state.number, row is not None and row.phase is Phase.SELECTION

    def _info(self, device: str, payload: bytes) -> None:
        self.state.registry.hear(device, "info", payload)

    def _ask(self, device: str, payload: bytes) -> None:
        if not admits(self.asks, device, payload, self.state.clock()):
            return
        ask = decode_ask(payload)
        if ask.what == "blob":
            known = self.state.library.ask(ask.digest, ask.spans, device, self.state.clock(), ask.piece_bytes)
            if not known and not self.state.waits_for_its_roll_out(ask.digest):
                raise Refused(f"there is no blob {ask.digest[:12] or 'without a name'} with these bytes", code="E-BLOB")
        elif ask.what == "decline":
            self._declined(device, ask)
        else:
            self._what_became(device, ask)

    def _declined(self, device: str, ask: Ask) -> None:
        state = self.state
        if ask.run != state.run or state.book.outcomes(ask.round).get(device) != "":
            return
        with state.database.change():
            state.book.decline(ask.round, device, ask.code, ask.reason, ask.done)
        log_event("declined", device=device, round=ask.round, code=ask.code, reason=ask.reason)

    def _what_became(self, device: str, ask: Ask) -> None:
        """Answers what became of an update: its receipt, or what is missing of it, or that it is of no use."""
        if not ask.digest:
            raise WireError("a question about an update that it does not name")
        receipt = self.state.book.settled(device, ask.digest)
        if receipt is None and not self._takes(ask.run, ask.round):
            if self._waits(ask.run, ask.round):
                return
            reason = f"round {ask.round} of run {ask.run} takes no updates"
            self._refuse(device, ask.round, ask.digest, Refused(reason, code="E-ROUND-CLOSED"), run=ask.run)
            return
        if receipt is None:
            wrong = self._cannot_be(device, ask)
            if wrong is not None:
                self._refuse(device, ask.round, ask.digest, wrong, run=ask.run, claimed=ask.round)
                return
            spans = self.intake.missing(device, ask)
            receipt = Receipt(ask.digest, ask.run, ask.round, "missing", spans=spans)
        self._answer(device, receipt)

    def _cannot_be(self, device: str, ask: Ask) -> Refused | None:
        """Returns why an update will not count, before any of it was sent."""
        most = self.state.planner.most_update_bytes
        if ask.total > most:
            return Refused(f"{ask.total} bytes, at most {most} can be right", code="E-SIZE")
        if not self.state.book.invited(ask.round, device):
            return Refused(f"{device!r} was not invited to round {ask.round}", code="E-NOT-INVITED")
        return None

    def _piece(self, device: str, payload: bytes) -> None:
        digest = bytes(payload[:_DIGEST_BYTES]).hex() if len(payload) > HEADER_BYTES else digest_bytes(payload)
        receipt = self.state.book.settled(device, digest)
        if receipt is not None:
            self._answer(device, receipt)
            return
        try:
            whole = self._gathered(device, payload)
        except WireError as exc:
            claimed = self.state.number if self._never_right(device, payload) else None
            self._refuse(device, self.state.number, digest, exc, claimed=claimed)
            return
        if whole is not None:
            self._weigh(device, digest, whole)

    def _never_right(self, device: str, payload: bytes) -> bool:
        """Tells whether a piece is of an update that no round of this run would take, and the only one under way.

        A piece names no round. But the limit is the same for all rounds of a run, so a larger total is right for none;
        and a device that is sending another update may well send the right one: this piece is then left over from
        before. If it is such a piece after all, the device is only not waited for: its right update still counts.
        """
        total = announced_bytes(payload)
        if total is None or total <= self.state.planner.most_update_bytes:
            return False
        return not self.intake.gathers(device)

    def _gathered(self, device: str, payload: bytes) -> Path | None:
        """Puts a piece to the others of its update; returns the file of the whole once it is there."""
        state = self.state
        chunk = decode_chunk(payload, state.planner.most_update_bytes)
        if not state.collecting:
            if state.planner.recipe.devices.late == "fold":
                return None  # it may be a late update that the next round takes: the device will ask again
            raise Refused(f"round {state.number} takes no updates", code="E-ROUND-CLOSED")
        if not self._welcome(device, state.number):
            raise Refused(f"{device!r} was not invited to round {state.number}", code="E-NOT-INVITED")
        return self.intake.take(device, chunk)

    def _weigh(self, device: str, digest: str, whole: Path) -> None:
        claimed = self.state.number
        try:
            data = whole.read_bytes()
            claimed = (peek_header(data, MAX_HEADER_BYTES) or {}).get("round", claimed)
            self._judge(device, digest, whole, data)
        except StateError:
            raise
        except BitfleetError as exc:
            self._refuse(device, self.state.number, digest, exc, claimed=claimed)
        finally:
            whole.unlink(missing_ok=True)

    def _judge(self, device: str, digest: str, whole: Path, data: bytes) -> None:
        """Accepts a whole update: checked, in the journal, in the database, and only then receipted."""
        state, most = self.state, self.state.planner.most_update_bytes
        header = check_update(data, device, most, lambda run, number: self._view(run, number, device))
        if state.book.has_update(header.round, device):
            raise Refused("another update of this round was accepted before", code="E-DUPLICATE")
        into = self.state.number
        counted = Counted(device, header.round, digest, len(data), header.examples)
        path = state.planner.journal(into, counted)
        make_folder(path.parent, state.planner.durable)
        move_whole(whole, path, state.planner.durable)
        self._enter(header, digest, len(data), into)
        self._answer(device, Receipt(digest, header.run, header.round, "accepted"))

    def _enter(self, header: UpdateHeader, digest: str, size: int, into: int) -> None:
        with self.state.database.change():
            self.state.registry.save()
            self.state.book.accept(header, digest, size, into)
        log_event("accepted", device=header.device, round=header.round, bytes=size, into=into)

    def _view(self, run: str, number: int, device: str) -> RoundView | None:
        state = self.state
        plan = state.plan_of(number) if run == state.run else None
        if plan is None:
            return None
        return RoundView(
            plan=plan,
            spec=state.planner.spec,
            takes=self._takes(run, number),
            invited=state.book.invited(number, device),
            usual=state.book.most_examples(device),
            max_examples=state.planner.recipe.devices.max_examples,
            max_magnitude=state.planner.recipe.devices.max_magnitude,
        )

    def _takes(self, run: str, number: int) -> bool:
        if run != self.state.run or not self.state.collecting:
            return False
        return number == self.state.number or self.state.late_welcome(number)

    def _waits(self, run: str, number: int) -> bool:
        """Tells whether a late update may still be taken by the next round that collects."""
        return run == self.state.run and not self.state.over and self.state.late_welcome(number)

    def _welcome(self, device: str, newest: int) -> bool:
        """Tells whether an update of this device may count: it was invited to round `newest` or not too long before."""
        state, want = self.state, self.state.planner.recipe.devices
        oldest = state.number - (want.max_staleness if want.late == "fold" else 0)
        rounds = range(max(0, oldest), newest + 1)
        return not state.over and any(state.book.invited(number, device) for number in rounds)

    def _refuse(
        self, device: str, number: int, digest: str, exc: BitfleetError, *, run: str = "", claimed: object = None
    ) -> None:
        """Books a refusal and answers it. `claimed` is the round that a whole update says it is for."""
        state = self.state
        wrong = exc.code in CONTENT_CODES and claimed == state.number
        self.refusals[self._spell, device] += 1
        full = self.refusals[self._spell, device] == _MOST_REFUSALS
        with state.database.change():
            state.book.refuse(number, device, digest, exc.code, exc.message)
            # Nobody waits for a device whose update is wrong, nor for one that is not listened to any more.
            if (full or wrong) and state.book.outcomes(self.state.number).get(device) == "":
                state.book.disregard(self.state.number, device)
            if full:
                state.database.note("quarantined", state.run, self.state.number, device, refusals=_MOST_REFUSALS)
        log_event("refused", device=device, round=number, code=exc.code, reason=exc.message)
        receipt = Receipt(digest, run or state.run, max(0, number), "refused", exc.code, exc.message[:400])
        self._answer(device, receipt)

    def _answer(self, device: str, receipt: Receipt) -> None:
        self.state.say(device, "rcpt", encode_receipt(receipt, self.state.sign))


_READERS = {"state": Desk._heard_state, "info": Desk._info, "ask": Desk._ask, "up": Desk._piece}
