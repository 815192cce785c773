"""Moves a round through its phases, one small step at a time. Whatever must survive is booked before anyone is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from coordinator.learning.evaluator import Evaluator
from coordinator.rounds.phases import Phase, RoundRow, advance, begin_round, say_why
from coordinator.rounds.selection import eligible, quorum_of
from coordinator.run_state import RunState
from models.tasks import task
from wire.errors import BitfleetError
from wire.events import log_event

__all__ = ["Conductor"]

_MOST_DOUBLINGS = 30  # of a second: longer than any selection takes
_AGAIN_S = 1.0  # between two selections of the same round
_SAY_S = 5.0  # between two changes of what `status` shows of a round that waits
_LEAST_PATIENCE_S = 600.0
_UNPROVEN_PATIENCE_S = 6 * 3600.0  # what was given up makes it no longer: a child that hangs must not hold the run
_MOST_SKIPPED = 100_000  # numbers of rounds, on the word of devices
_PATIENT = (Phase.SELECTION, Phase.REPORTING)


@dataclass
class Conductor:
    """The steps of one run's rounds. `since_s` is when the present phase began, for this process.

    Without a link nobody can be heard: the phases that wait for devices then wait for the link, and their time stands
    still. `reopened` is the newest round when the run was last opened, -1 if that was at its start. `patience_s` is how
    long an evaluation may take: ten times the longest so far, and after one that was given up twice as long as that.
    """

    state: RunState
    evaluator: Evaluator
    since_s: float
    folding: Iterator[None] | None = None
    evaluating: bool = False
    longest_s: float = 0.0
    patience_s: float = _LEAST_PATIENCE_S
    seen_changes: int = -1
    linked: bool = False
    looked_s: float = field(init=False)
    why: str = field(init=False)
    said_s: float = -math.inf
    reopened: int = field(init=False)
    pause_s: float = field(init=False)

    def __post_init__(self) -> None:
        state, self.looked_s = self.state, self.since_s
        self.why = state.row.reason if state.row else ""
        self.reopened = state.book.reopened()
        self.pause_s = self._pause_s()

    def proceed(self, now_s: float) -> None:
        """Moves on as far as it goes without waiting."""
        state = self.state
        self._look_at_the_link(now_s)
        while not state.over:
            before = state.row
            if before is None or before.over:
                self._open_or_end()
            else:
                _STEPS[before.phase](self, before, now_s)
            if state.row is before:
                return
            self.since_s, self.seen_changes, self.why = now_s, -1, ""

    def due_s(self, now_s: float) -> float | None:
        """Returns in how many seconds `proceed` has something to do by itself, or None."""
        phase = self.state.row.phase if self.state.row else None
        want, spent = self.state.planner.recipe.devices, now_s - self.since_s
        if self.folding is not None:
            return 0.0
        if phase in _PATIENT and not self.state.post.online:
            return None
        selection_s = self.pause_s if spent < self.pause_s else want.selection_timeout_s
        waits = {
            Phase.SELECTION: selection_s,
            Phase.REPORTING: want.deadline_s,
            Phase.EVALUATION: self.patience_s,
        }
        return max(0.0, waits[phase] - spent) if phase in waits else None

    def _look_at_the_link(self, now_s: float) -> None:
        """Lets no time pass between two looks of which one found the link down."""
        row, online = self.state.row, self.state.post.online
        if row is not None and row.phase in _PATIENT:
            if not (online and self.linked):
                self.since_s += now_s - self.looked_s
            if not online:
                self._say_why(row, "there is no link to the broker", now_s)
        self.linked, self.looked_s = online, now_s

    def _say_why(self, row: RoundRow, why: str, now_s: float) -> None:
        """Lets `status` tell what a round waits for; seldom, however often devices come and go."""
        if why == self.why or now_s - self.said_s < _SAY_S:
            return
        with self.state.database.change():
            say_why(self.state.database, row, why)
        self.why, self.said_s = why, now_s
        if why:
            log_event("waiting", round=row.number, phase=row.phase.value, why=why)

    def _open_or_end(self) -> None:
        state, most = self.state, self.state.planner.recipe.devices.max_abandoned
        if state.book.abandoned(self.reopened) >= most:
            last = state.database.rows("SELECT reason FROM rounds WHERE run = ? ORDER BY round DESC LIMIT 1", state.run)
            self._end("stopped", f"{most} rounds in a row were abandoned, the last: {last[0]['reason']}")
        elif state.book.published() >= state.planner.recipe.rounds:
            self._end("done", "")
        else:
            with state.database.change():
                state.row = begin_round(state.database, state.run, self._next_number(), state.planner.base)
            self.pause_s = self._pause_s()
            log_event("round", number=state.number, phase="selection", base=state.planner.base[:12])

    def _next_number(self) -> int:
        """Returns the number of the next round: above those that devices were done with when they declined the last.

        They were done with them in a run of this name that this home knows nothing of: it was restored from a copy.
        """
        row = self.state.row
        if row is None:
            return 0
        done = self.state.book.done_with(row.number) if row.phase is Phase.ABANDONED else row.number
        return 1 + max(row.number, min(done, row.number + _MOST_SKIPPED))

    def _pause_s(self) -> float:
        """Returns how long a round waits before it selects: not at all, unless those before it were abandoned."""
        abandoned = self.state.book.abandoned(self.reopened)
        longest_s = self.state.planner.recipe.devices.selection_timeout_s
        return min(longest_s, 2.0 ** min(abandoned - 1, _MOST_DOUBLINGS)) if abandoned else 0.0

    def _end(self, status: str, reason: str) -> None:
        state, model = self.state, self.state.planner.model_digest
        with state.database.change():
            state.database.write("UPDATE runs SET status = ?, reason = ? WHERE run = ?", status, reason, state.run)
            state.database.note("run", state.run, status=status, reason=reason, model=model)
            state.book.traffic(state.number, *state.accounts.take())
            state.registry.save()
        state.over = True
        state.withdraw()
        log_event("run", status=status, model=model[:12], reason=reason or "none")

    def _select(self, row: RoundRow, now_s: float) -> None:
        state, want = self.state, self.state.planner.recipe.devices
        if not state.post.online or now_s - self.since_s < self.pause_s:
            return
        waited = now_s - self.since_s >= want.selection_timeout_s
        found, why = eligible(state, waited)
        if why:
            self._say_why(row, why, now_s)
            if waited:  # with those who come now others may come
                self.since_s, self.pause_s = now_s, _AGAIN_S
            return
        order = state.planner.order(row.number, len(found))
        chosen = sorted(found[at] for at in order[: want.invited])
        with state.database.change():
            state.book.invite(row, chosen)
            state.row = advance(state.database, row, Phase.CONFIGURATION, devices=chosen, eligible=len(found))
            state.registry.save()

    def _configure(self, row: RoundRow, now_s: float) -> None:
        state = self.state
        query = "SELECT round FROM rounds WHERE run = ? AND state = ? ORDER BY round"
        given_up = [found["round"] for found in state.database.rows(query, state.run, Phase.ABANDONED.value)]
        plan = state.planner.plan(row, state.sign, given_up)
        with state.database.change():
            levels = state.planner.levels
            shown = {"levels": levels} if levels else {}
            state.row = advance(state.database, row, Phase.REPORTING, plan=plan, plan_bytes=len(plan), **shown)
        state.invite()
        state.withdraw()
        log_event("round", number=row.number, phase="reporting")

    def _collect(self, row: RoundRow, now_s: float) -> None:
        state, want = self.state, self.state.planner.recipe.devices
        due = now_s - self.since_s >= want.deadline_s
        if state.post.online:
            self._say_why(row, "", now_s)
        changes = state.database.link.total_changes
        if changes == self.seen_changes and not due:
            return
        self.seen_changes = changes
        outcomes = state.book.tally(row.number)
        accepted, silent = outcomes["accepted"], outcomes[""]
        if accepted < want.goal and silent and not due:
            return
        quorum = quorum_of(want)
        if accepted < quorum:
            said = f"{outcomes['declined']} declined, {outcomes['refused']} refused, {silent} silent"
            done = state.book.done_with(row.number)
            known = f"; devices are done with round {done} (is this home a copy?): numbers go on above it"
            self._abandon(row, f"{accepted} of {quorum} updates, {said}{known if done >= 0 else ''}")
            return
        with state.database.change():
            state.row = advance(state.database, row, Phase.AGGREGATION, reported=accepted, missing=silent)
        state.withdraw()

    def _abandon(self, row: RoundRow, reason: str) -> None:
        state = self.state
        with state.database.change():
            state.book.give_up(row.number, "E-ROUND-ABANDONED", reason)
            state.book.traffic(row.number, *state.accounts.take())
            state.row = advance(state.database, row, Phase.ABANDONED, reason=reason)
            state.registry.save()
        state.withdraw()
        log_event("round", number=row.number, phase="abandoned", reason=reason)

    def _aggregate(self, row: RoundRow, now_s: float) -> None:
        """Folds one update a step, so that the link stays alive however many there are."""
        state = self.state
        if self.folding is None:
            self.folding = state.planner.fold(row, state.book.counted(row.number), state.plan_of)
        try:
            if next(self.folding, self) is not self:
                return
        except BitfleetError as exc:  # else every restart would come to the same end
            self.folding = None
            self._abandon(row, f"the updates cannot be folded: {exc}")
            return
        self.folding = None
        counted = state.book.counted(row.number)
        updates = [{"device": c.device, "round": c.round, "digest": c.digest} for c in counted]
        with state.database.change():
            said: dict[str, Any] = {"updates": updates, "update_bytes": sum(c.size for c in counted)}
            state.row = advance(state.database, row, Phase.EVALUATION, model=state.planner.model_digest, **said)

    def _evaluate(self, row: RoundRow, now_s: float) -> None:
        planner = self.state.planner
        if task(planner.recipe.task).metric is None or not self._worth_measuring():
            self._publish(row, {})
            return
        if not self.evaluating:
            self.evaluating = True
            self.evaluator.start(planner.question(row.number))
        figures, spent_s = self.evaluator.poll(), now_s - self.since_s
        if figures is not None:
            self.longest_s = max(self.longest_s, spent_s)
            self.patience_s = max(_LEAST_PATIENCE_S, 10 * self.longest_s)
        elif spent_s >= self.patience_s:
            self.evaluator.stop()
            figures = {"error": f"no figures within {self.patience_s:.0f} s"}
            # The next one has twice the time, for it may only have been slow.
            self.patience_s = max(self.patience_s, min(2 * self.patience_s, _UNPROVEN_PATIENCE_S))
        if figures is not None:
            self.evaluating = False
            self._publish(row, figures)

    def _worth_measuring(self) -> bool:
        """Tells whether this round is one of those that are measured: every n-th, and the last."""
        recipe = self.state.planner.recipe
        done = self.state.book.published() + 1
        return done % recipe.evaluate.every == 0 or done >= recipe.rounds

    def _publish(self, row: RoundRow, figures: dict[str, Any]) -> None:
        state, planner = self.state, self.state.planner
        with state.database.change():
            state.database.note("evaluated", state.run, row.number, **figures)
            state.book.traffic(row.number, *state.accounts.take())
            state.row = advance(state.database, row, Phase.PUBLISHED, model=planner.model_digest)
            state.registry.save()
        planner.tidy(row.number)
        state.library.keep_only({planner.spec_digest, *planner.blob_digests})
        log_event("round", number=row.number, phase="published", **figures)


_STEPS: dict[Phase, Callable[[Conductor, RoundRow, float], None]] = {
    Phase.SELECTION: Conductor._select,
    Phase.CONFIGURATION: Conductor._configure,
    Phase.REPORTING: Conductor._collect,
    Phase.AGGREGATION: Conductor._aggregate,
    Phase.EVALUATION: Conductor._evaluate,
}
