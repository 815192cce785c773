"""The states of a round and the moves between them. Every move is one durable transaction with a ledger line.

    selection -> configuration -> reporting -> aggregation -> evaluation -> published
                                      \\____________\\_________________________> abandoned (reason)

Nobody was asked for anything before there was a plan: a round that finds too few devices stays in its selection.

A restart goes on from the row in the database, never from memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from coordinator.state.database import Database
from wire.errors import StateError

__all__ = ["NEXT", "Phase", "RoundRow", "advance", "begin_round", "last_round", "say_why"]


class Phase(str, Enum):
    """What a round is waiting for."""

    SELECTION = "selection"
    CONFIGURATION = "configuration"
    REPORTING = "reporting"
    AGGREGATION = "aggregation"
    EVALUATION = "evaluation"
    PUBLISHED = "published"
    ABANDONED = "abandoned"


NEXT = {
    Phase.SELECTION: (Phase.CONFIGURATION,),
    Phase.CONFIGURATION: (Phase.REPORTING,),
    Phase.REPORTING: (Phase.AGGREGATION, Phase.ABANDONED),
    Phase.AGGREGATION: (Phase.EVALUATION, Phase.ABANDONED),
    Phase.EVALUATION: (Phase.PUBLISHED,),
    Phase.PUBLISHED: (),
    Phase.ABANDONED: (),
}


@dataclass(frozen=True, slots=True)
class RoundRow:
    """A round as the database has it. `reason` says why it was abandoned, or at the last start why it waited."""

    run: str
    number: int
    phase: Phase
    base: str
    plan: bytes | None = None
    reason: str = ""

    @property
    def over(self) -> bool:
        """Tells whether nothing more will happen in this round."""
        return not NEXT[self.phase]


def last_round(database: Database, run: str) -> RoundRow | None:
    """Returns the run's newest round."""
    row = database.row("SELECT * FROM rounds WHERE run = ? ORDER BY round DESC LIMIT 1", run)
    return RoundRow(run, row["round"], Phase(row["state"]), row["base"], row["plan"], row["reason"]) if row else None


def begin_round(database: Database, run: str, number: int, base: str) -> RoundRow:
    """Opens a round; only within a change."""
    first = Phase.SELECTION
    database.write("INSERT INTO rounds (run, round, state, base) VALUES (?, ?, ?, ?)", run, number, first.value, base)
    database.note("phase", run, number, phase=first.value, base=base)
    return RoundRow(run, number, first, base)


def advance(database: Database, row: RoundRow, phase: Phase, plan: bytes | None = None, **body: Any) -> RoundRow:
    """Moves a round on; only within a change. Raises StateError for a move that the table does not have."""
    if phase not in NEXT[row.phase]:
        raise StateError(f"round {row.number} cannot go from {row.phase.value} to {phase.value}")
    kept, reason = plan if plan is not None else row.plan, str(body.get("reason", ""))
    database.write(
        "UPDATE rounds SET state = ?, plan = ?, reason = ? WHERE run = ? AND round = ?",
        phase.value, kept, reason, row.run, row.number,
    )  # fmt: skip
    database.note("phase", row.run, row.number, phase=phase.value, **body)
    return RoundRow(row.run, row.number, phase, row.base, kept, reason)


def say_why(database: Database, row: RoundRow, reason: str) -> None:
    """Enters why a round goes no further, for who asks; only within a change. The ledger takes no line of it."""
    database.write("UPDATE rounds SET reason = ? WHERE run = ? AND round = ?", reason, row.run, row.number)
