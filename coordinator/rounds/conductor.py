"""Moves a round through its phases, one small step at a time. Whatever must survive is booked before anyone is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import dropwhile, takewhile
from typing import Any

from coordinator.learning.evaluator import Evaluator
from coordinator.rounds.phases import Phase, RoundRow, advance, begin_round
from coordinator.run_state import RunState
from models.tasks import task
from wire.errors import BitfleetError
from wire.events import log_event

__all__ = ["Conductor"]

_MOST_DOUBLINGS = 30  # of a second: longer than any selection takes


@dataclass
class Conductor:
    """The steps of one run's rounds. `since_s` is when the present phase began, for this process."""

    state: RunState
    evaluator: Evaluator
    since_s: float
    folding: Iterator[None] | None = None
    evaluating: bool = False
    seen_changes: int = -1
    pause_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.pause_s = self._pause_s(self._phases())

    def proceed(self, now_s: float) -> None:
        """Moves on as far as it goes without waiting."""
        state = self.state
        while not state.over:
            before = state.row
            if before is None or before.over:
                self._open_or_end()
            else:
                _STEPS[before.phase](self, before, now_s)
            if state.row is before:
                return
            self.since_s, self.seen_changes = now_s, -1

    def due_s(self, now_s: float) -> float | None:
        """Returns in how many seconds `proceed` has something to do by itself, or None."""
        phase = self.state.row.phase if self.state.row else None
        want, spent = self.state.planner.recipe.devices, now_s - self.since_s
        if self.folding is not None:
            return 0.0
        selection_s = self.pause_s if spent < self.pause_s else want.selection_timeout_s
        waits = {Phase.SELECTION: selection_s, Phase.REPORTING: want.deadline_s}
        return max(0.0, waits[phase] - spent) if phase in waits else None

    def _open_or_end(self) -> None:
        state, most = self.state, self.state.planner.recipe.devices.max_abandoned
        phases = self._phases()
        if phases[:most] == [Phase.ABANDONED.value] * most:
            last = state.database.rows("SELECT reason FROM rounds WHERE run = ? ORDER BY round DESC LIMIT 1", state.run)
            self._end("stopped", f"{most} rounds in a row were abandoned, the last: {last[0]['reason']}")
        elif phases.count(Phase.PUBLISHED.value) >= state.planner.recipe.rounds:
            self._end("done", "")
        else:
            with state.database.change():
                state.row = begin_round(state.database, state.run, len(phases), state.planner.base)
            self.pause_s = self._pause_s(phases)
            log_event("round", number=state.number, phase="selection", base=state.planner.base[:12])

    def _phases(self) -> list[str]:
        query = "SELECT state FROM rounds WHERE run = ? ORDER BY round DESC"
        return [row["state"] for row in self.state.database.rows(query, self.state.run)]

    def _pause_s(self, phases: list[str]) -> float:
        """Returns how long a round waits before it selects: not at all, unless those before it were abandoned."""
        ended = dropwhile(lambda phase: phase == Phase.SELECTION.value, phases)
        abandoned = sum(1 for _ in takewhile(lambda phase: phase == Phase.ABANDONED.value, ended))
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
        state, recipe = self.state, self.state.planner.recipe
        want = recipe.devices
        if now_s - self.since_s < self.pause_s:
            return
        eligible = state.registry.eligible(recipe.task)
        waited = now_s - self.since_s >= want.selection_timeout_s
        if len(eligible) < want.goal and not waited:
            return
        if len(eligible) < self._quorum:
            self._abandon(row, f"{len(eligible)} devices within {want.selection_timeout_s:.0f} s, too few for a quorum")
            return
        order = state.planner.order(row.number, len(eligible))
        chosen = sorted(eligible[at] for at in order[: want.invited])
        with state.database.change():
            state.book.invite(row, chosen)
            state.row = advance(state.database, row, Phase.CONFIGURATION, devices=chosen, eligible=len(eligible))
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
        changes = state.database.link.total_changes
        if changes == self.seen_changes and not due:
            return
        self.seen_changes = changes
        outcomes = state.book.tally(row.number)
        accepted, silent = outcomes["accepted"], outcomes[""]
        if accepted < want.goal and silent and not due:
            return
        if accepted < self._quorum:
            said = f"{outcomes['declined']} declined, {outcomes['refused']} refused, {silent} silent"
            self._abandon(row, f"{accepted} of {self._quorum} updates, {said}")
            return
        with state.database.change():
            state.row = advance(state.database, row, Phase.AGGREGATION, reported=accepted, missing=silent)
        state.withdraw()

    @property
    def _quorum(self) -> int:
        want = self.state.planner.recipe.devices
        return max(1, math.ceil(want.quorum * want.goal))

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
        figures = self.evaluator.poll()
        if figures is not None:
            self.evaluating = False
            self._publish(row, figures)

    def _worth_measuring(self) -> bool:
        """Tells whether this round is one of those that are measured: every n-th, and the last."""
        recipe = self.state.planner.recipe
        done = self._phases().count(Phase.PUBLISHED.value) + 1
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
