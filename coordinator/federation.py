"""One run: the loop that invites, accepts, reduces, evaluates and publishes, one small step at a time.

`step` waits for one event and then does what is due. Everything that must survive is in the database, the journal or
a checkpoint before anybody is told of it; a new Federation over the same folder goes on where the old one ended.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from coordinator.accounts import Accounts
from coordinator.desk import Desk
from coordinator.learning.evaluator import Evaluator
from coordinator.library import Library
from coordinator.rounds.book import Book
from coordinator.rounds.phases import Phase, RoundRow, advance, begin_round, last_round
from coordinator.rounds.planner import Planner
from coordinator.state.database import Database
from coordinator.state.registry import Registry
from models.tasks import task
from wire.bits import Bits
from wire.events import log_event
from wire.messages.plan import RoundPlan, decode_plan
from wire.messages.reports import DeviceState, encode_state
from wire.topics import Topics
from wire.transport import Down, Event, Message, Sent, Transport, Unsent, Up

__all__ = ["Federation"]

_LONGEST_WAIT_S = 5.0
_PIECES_IN_FLIGHT = 16


@dataclass
class Federation:
    """One run over one transport. `clock` is monotonic."""

    run: str
    planner: Planner
    database: Database
    registry: Registry
    transport: Transport
    topics: Topics
    evaluator: Evaluator
    clock: Callable[[], float]
    sign: Callable[[bytes], bytes] | None = None
    row: RoundRow | None = None
    over: bool = False
    online: bool = False
    since_s: float = 0.0
    accounts: Accounts = field(default_factory=Accounts)
    library: Library = field(init=False)
    desk: Desk = field(init=False)
    flying: set[int] = field(default_factory=set)
    folding: Iterator[None] | None = None
    evaluating: bool = False
    counted_at: int = -1

    def __post_init__(self) -> None:
        self.library = Library(self.planner.folder / "blobs")
        self.desk = Desk(self)
        self.row = last_round(self.database, self.run)
        self.since_s = self.clock()
        self._offer_spec()

    @property
    def book(self) -> Book:
        """Returns the run's book."""
        return Book(self.database, self.run)

    @property
    def plan(self) -> RoundPlan | None:
        """Returns the plan of the newest round, once it has one."""
        return self.plan_of(self.row.number) if self.row and self.row.plan else None

    def plan_of(self, number: int) -> RoundPlan | None:
        """Returns a round's plan, or None."""
        query = "SELECT plan FROM rounds WHERE run = ? AND round = ?"
        found = self.database.row(query, self.run, number)
        return decode_plan(found["plan"]) if found and found["plan"] else None

    def step(self, longest_s: float = _LONGEST_WAIT_S) -> bool:
        """Waits for an event at most until something is due, and acts; tells whether there was an event."""
        event = self.transport.receive(min(longest_s, self._due_s()), self.evaluator.wake)
        if event is not None:
            self._handle(event)
        self._send_pieces(self.clock())
        self._proceed(self.clock())
        return event is not None

    def say(self, topic: str, payload: bytes, device: str = "", retain: bool = False) -> int:
        """Publishes, and counts it for the device it is meant for."""
        if not self.online:
            return 0
        if device:
            self.accounts.sent(device, topic, len(payload))
        return self.transport.publish(topic, payload, retain=retain)

    def _handle(self, event: Event) -> None:
        if isinstance(event, Message):
            self.desk.read(event)
        elif isinstance(event, Up):
            self._greet(event)
        elif isinstance(event, Down):
            self.online = False
            self.flying.clear()
            log_event("link-down", reason=event.reason)
        elif isinstance(event, Sent | Unsent):
            self.flying.discard(event.token)

    def _greet(self, event: Up) -> None:
        """A new link: everything retained is published again."""
        self.online, self.library.payload_bytes = True, event.payload_bytes
        self.transport.subscribe(*(self.topics.device("+", leaf) for leaf in ("state", "info", "up", "ask")))
        ready = encode_state(DeviceState("ready", self.planner.session))
        self.transport.publish(self.topics.coordinator, ready, retain=True)
        self._invite_again()
        log_event("link-up", payload_bytes=event.payload_bytes)

    def _send_pieces(self, now_s: float) -> None:
        self.library.gather(now_s)
        while self.online and len(self.flying) < _PIECES_IN_FLIGHT:
            piece = self.library.next_piece()
            if piece is None:
                return
            topic = self.topics.blob(piece.digest)
            for device in piece.askers:
                self.accounts.sent(device, topic, len(piece.payload))
            self.flying.add(self.transport.publish(topic, piece.payload))

    def _proceed(self, now_s: float) -> None:
        """Moves the round on as far as it goes without waiting."""
        while not self.over:
            before = self.row
            if self.row is None or self.row.over:
                self._open_or_end()
            else:
                _STEPS[self.row.phase](self, self.row, now_s)
            if self.row is before:
                return
            self.since_s = now_s

    def _open_or_end(self) -> None:
        done = self.database.row(
            "SELECT count(*) AS n FROM rounds WHERE run = ? AND state = ?", self.run, Phase.PUBLISHED.value
        )
        recent = self.database.rows(
            "SELECT state FROM rounds WHERE run = ? ORDER BY round DESC LIMIT ?",
            self.run, self.planner.recipe.devices.max_abandoned,
        )  # fmt: skip
        stuck = len(recent) == self.planner.recipe.devices.max_abandoned
        stuck = stuck and all(row["state"] == Phase.ABANDONED.value for row in recent)
        if (done and done["n"] >= self.planner.recipe.rounds) or stuck:
            self._end("stopped" if stuck else "done", "too many rounds in a row were abandoned" if stuck else "")
            return
        number = self.row.number + 1 if self.row else 0
        with self.database.change():
            self.row = begin_round(self.database, self.run, number, self.planner.base)
        log_event("round", number=number, phase="selection", base=self.planner.base[:12])

    def _end(self, status: str, reason: str) -> None:
        with self.database.change():
            self.database.write("UPDATE runs SET status = ?, reason = ? WHERE run = ?", status, reason, self.run)
            self.database.note("run", self.run, status=status, reason=reason, model=self.planner.model_digest)
            self.registry.save()
        self.over = True
        log_event("run", status=status, model=self.planner.model_digest[:12], reason=reason or "none")

    def _select(self, row: RoundRow, now_s: float) -> None:
        want = self.planner.recipe.devices
        eligible = self.registry.eligible(self.planner.recipe.task)
        waited = now_s - self.since_s >= want.selection_timeout_s
        if len(eligible) < want.goal and not waited:
            return
        if len(eligible) < max(1, math.ceil(want.quorum * want.goal)):
            self._abandon(row, f"{len(eligible)} devices within {want.selection_timeout_s:.0f} s, too few for a quorum")
            return
        order = Bits.of(self.planner.recipe.seed, "select", row.number).permutation(len(eligible))
        chosen = sorted(eligible[at] for at in order[: math.ceil(want.over * want.goal)])
        with self.database.change():
            self.book.invite(row, chosen)
            self.row = advance(self.database, row, Phase.CONFIGURATION, devices=chosen, eligible=len(eligible))
            self.registry.save()

    def _configure(self, row: RoundRow, now_s: float) -> None:
        plan = self.planner.plan(row, self.sign)
        with self.database.change():
            self.row = advance(self.database, row, Phase.REPORTING, plan=plan, plan_bytes=len(plan))
        self._invite_again()
        log_event("round", number=row.number, phase="reporting", devices=len(self.book.outcomes(row.number)))

    def _invite_again(self) -> None:
        """Publishes the open round's plan to every device that still owes an answer."""
        row = self.row
        if row is None or row.phase is not Phase.REPORTING or row.plan is None:
            return
        for device, outcome in self.book.outcomes(row.number).items():
            if not outcome:
                self.say(self.topics.device(device, "plan"), row.plan, device, retain=True)

    def _collect(self, row: RoundRow, now_s: float) -> None:
        want = self.planner.recipe.devices
        due = now_s - self.since_s >= want.deadline_s
        if self.counted_at == self.database.link.total_changes and not due:
            return
        self.counted_at = self.database.link.total_changes
        outcomes = Counter(self.book.outcomes(row.number).values())
        if outcomes["accepted"] < want.goal and outcomes[""] and not due:
            return
        needed = max(1, math.ceil(want.quorum * want.goal))
        if outcomes["accepted"] < needed:
            said = f"{outcomes['declined']} declined, {outcomes['refused']} refused, {outcomes['']} silent"
            self._abandon(row, f"{outcomes['accepted']} of {needed} updates, {said}")
            return
        self._withdraw(row)
        with self.database.change():
            self.row = advance(
                self.database, row, Phase.AGGREGATION, reported=outcomes["accepted"], missing=outcomes[""]
            )

    def _withdraw(self, row: RoundRow) -> None:
        """Tells the devices that are late to stop, unless late updates are welcome."""
        if self.planner.recipe.devices.late == "fold":
            return
        for device, outcome in self.book.outcomes(row.number).items():
            if not outcome:
                self.say(self.topics.device(device, "plan"), b"", device, retain=True)

    def _abandon(self, row: RoundRow, reason: str) -> None:
        self._withdraw(row)
        with self.database.change():
            self.book.give_up(row.number, "E-ROUND-ABANDONED", reason)
            self.book.traffic(row.number, *self.accounts.take())
            self.row = advance(self.database, row, Phase.ABANDONED, reason=reason)
            self.registry.save()
        log_event("round", number=row.number, phase="abandoned", reason=reason)

    def _aggregate(self, row: RoundRow, now_s: float) -> None:
        """Folds one update a step, so that the link stays alive however many there are."""
        counted = self.book.counted(row.number)
        if self.folding is None:
            self.folding = self.planner.fold(row, counted, self.plan_of)
        if next(self.folding, self) is not self:
            return
        self.folding = None
        with self.database.change():
            self.row = advance(
                self.database, row, Phase.EVALUATION, model=self.planner.model_digest, base_next=self.planner.base,
                updates=[{"device": c.device, "round": c.round, "digest": c.digest} for c in counted],
            )  # fmt: skip

    def _evaluate(self, row: RoundRow, now_s: float) -> None:
        if task(self.planner.recipe.task).metric is None:
            self._publish(row, {})
            return
        if not self.evaluating:
            self.evaluating = True
            self.evaluator.start(self.planner.spec, self.planner.checkpoint(row.number), self.planner.recipe.task)
        figures = self.evaluator.poll()
        if figures is not None:
            self.evaluating = False
            self._publish(row, figures)

    def _publish(self, row: RoundRow, figures: dict[str, Any]) -> None:
        up, down = self.accounts.take()
        with self.database.change():
            self.database.note("evaluated", self.run, row.number, **figures)
            self.book.traffic(row.number, up, down)
            self.row = advance(self.database, row, Phase.PUBLISHED, model=self.planner.model_digest)
            self.registry.save()
        self.planner.tidy(row.number)
        self.library.keep_only({self.planner.spec_digest, *self.planner.blob_digests})
        log_event("round", number=row.number, phase="published", **figures)

    def _offer_spec(self) -> None:
        self.library.put(self.planner.spec_digest, self.planner.spec_bytes)
        for digest, data in self.planner.new_blobs():
            self.library.put(digest, data)

    def _due_s(self) -> float:
        if self.folding is not None or (self.library.due and len(self.flying) < _PIECES_IN_FLIGHT):
            return 0.0
        waits = [_LONGEST_WAIT_S, self.library.due_s(self.clock())]
        want, spent = self.planner.recipe.devices, self.clock() - self.since_s
        if self.row and self.row.phase is Phase.SELECTION:
            waits.append(want.selection_timeout_s - spent)
        if self.row and self.row.phase is Phase.REPORTING:
            waits.append(want.deadline_s - spent)
        return max(0.0, min(wait for wait in waits if wait is not None))


_STEPS: dict[Phase, Callable[[Federation, RoundRow, float], None]] = {
    Phase.SELECTION: Federation._select,
    Phase.CONFIGURATION: Federation._configure,
    Phase.REPORTING: Federation._collect,
    Phase.AGGREGATION: Federation._aggregate,
    Phase.EVALUATION: Federation._evaluate,
}
