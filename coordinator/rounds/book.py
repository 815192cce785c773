"""The book of a run: who was invited, whose update counts, whose was refused. Every entry also goes to the ledger."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.rounds.phases import Phase, RoundRow
from coordinator.state.database import Database
from wire.messages.reports import Receipt
from wire.messages.update import UpdateHeader

__all__ = ["Book", "Counted"]


@dataclass(frozen=True, slots=True)
class Counted:
    """An accepted update. It was trained in `round` and counts in another one only if it came late."""

    device: str
    round: int
    digest: str
    size: int
    examples: int


@dataclass(slots=True)
class Book:
    """Reads and writes one run's entries; writes only within a change."""

    database: Database
    run: str

    def invite(self, row: RoundRow, devices: list[str]) -> None:
        """Enters the invitations of a round."""
        for device in devices:
            self.database.write(
                "INSERT INTO invited (run, round, device) VALUES (?, ?, ?)", self.run, row.number, device
            )

    def outcomes(self, number: int) -> dict[str, str]:
        """Returns what became of each invitation: "" while it is open."""
        query = "SELECT device, outcome FROM invited WHERE run = ? AND round = ? ORDER BY device"
        return {row["device"]: row["outcome"] for row in self.database.rows(query, self.run, number)}

    def tally(self, number: int) -> Counter[str]:
        """Returns how many invitations of a round came to each outcome."""
        query = "SELECT outcome, count(*) AS many FROM invited WHERE run = ? AND round = ? GROUP BY outcome"
        return Counter({row["outcome"]: row["many"] for row in self.database.rows(query, self.run, number)})

    def invited(self, number: int, device: str) -> bool:
        """Tells whether a device was invited to a round."""
        query = "SELECT 1 FROM invited WHERE run = ? AND round = ? AND device = ?"
        return self.database.row(query, self.run, number, device) is not None

    def newest_invitations(self, oldest: int = 0) -> list[tuple[str, int, str]]:
        """Returns of every device invited to round `oldest` or later: its id, the newest such round, the outcome."""
        query = (
            "SELECT device, max(round) AS newest, outcome FROM invited WHERE run = ? AND round >= ? "
            "GROUP BY device ORDER BY device"
        )
        return [(row["device"], row["newest"], row["outcome"]) for row in self.database.rows(query, self.run, oldest)]

    def accept(self, header: UpdateHeader, digest: str, size: int, into: int) -> None:
        """Enters an update that counts in round `into`."""
        self.database.write(
            "INSERT INTO updates VALUES (?, ?, ?, ?, ?, ?, ?)",
            self.run, header.round, header.device, digest, size, header.examples, into,
        )  # fmt: skip
        self._settle(header.round, header.device, "accepted")
        self.database.note(
            "accepted", self.run, header.round, header.device, digest=digest, bytes=size, examples=header.examples,
            into=into, metrics=dict(header.metrics),
        )  # fmt: skip

    def refuse(self, number: int, device: str, digest: str, code: str, reason: str) -> None:
        """Enters an update that does not count; the device may still send a right one."""
        self.database.write(
            "INSERT OR IGNORE INTO refused VALUES (?, ?, ?, ?, ?, ?)", self.run, number, device, digest, code, reason
        )
        self.database.note("refused", self.run, number, device, digest=digest, code=code, reason=reason)

    def disregard(self, number: int, device: str) -> None:
        """Enters that a round need not wait for a device whose update was wrong; a right one is still taken."""
        self._settle(number, device, "refused")

    def decline(self, number: int, device: str, code: str, reason: str, done: int = -1) -> None:
        """Enters that a device does not take part; `done` is the newest round that it is done with, if it says so."""
        self._settle(number, device, "declined")
        said = {"done": done} if done >= 0 else {}
        self.database.note("declined", self.run, number, device, code=code, reason=reason, **said)

    def done_with(self, number: int) -> int:
        """Returns the newest round that devices said to be done with when they declined this one; -1 if none did."""
        query = "SELECT body FROM ledger WHERE run = ? AND round = ? AND event = 'declined'"
        lines = self.database.rows(query, self.run, number)
        return max((json.loads(line["body"]).get("done", -1) for line in lines), default=-1)

    def reopened(self) -> int:
        """Returns which round was the newest when the run was last opened; -1 at its start."""
        query = "SELECT coalesce(max(round), -1) FROM ledger WHERE run = ? AND event = 'run'"
        return self._number(query, self.run)

    def published(self) -> int:
        """Returns how many rounds were published."""
        return self._number("SELECT count(*) FROM rounds WHERE run = ? AND state = ?", self.run, Phase.PUBLISHED.value)

    def abandoned(self, after: int) -> int:
        """Returns how many of the rounds after `after` were abandoned since the last that was published."""
        query = (
            "SELECT count(*) FROM rounds WHERE run = ? AND state = ? AND round > ? AND round > "
            "(SELECT coalesce(max(round), -1) FROM rounds WHERE run = ? AND state = ?)"
        )
        return self._number(query, self.run, Phase.ABANDONED.value, after, self.run, Phase.PUBLISHED.value)

    def give_up(self, number: int, code: str, reason: str) -> None:
        """Moves the accepted updates of an abandoned round to the refused ones."""
        for update in self.counted(number):
            self.refuse(update.round, update.device, update.digest, code, reason)
        self.database.write("DELETE FROM updates WHERE run = ? AND into_round = ?", self.run, number)

    def counted(self, into: int) -> list[Counted]:
        """Returns the updates that count in a round, in canonical order."""
        query = "SELECT * FROM updates WHERE run = ? AND into_round = ? ORDER BY device, round"
        return [
            Counted(row["device"], row["round"], row["digest"], row["bytes"], row["examples"])
            for row in self.database.rows(query, self.run, into)
        ]

    def settled(self, device: str, digest: str) -> Receipt | None:
        """Returns the receipt that this very update got before."""
        key = (device, digest)
        row = self.database.row("SELECT * FROM refused WHERE device = ? AND digest = ?", *key)
        if row:
            return Receipt(digest, row["run"], row["round"], "refused", row["code"], row["reason"])
        row = self.database.row("SELECT * FROM updates WHERE device = ? AND digest = ?", *key)
        return Receipt(digest, row["run"], row["round"], "accepted") if row else None

    def has_update(self, number: int, device: str) -> bool:
        """Tells whether the device's update of a round was accepted."""
        query = "SELECT 1 FROM updates WHERE run = ? AND round = ? AND device = ?"
        return self.database.row(query, self.run, number, device) is not None

    def most_examples(self, device: str) -> int | None:
        """Returns the device's largest example count in this run, or None."""
        row = self.database.row(
            "SELECT max(examples) AS most FROM updates WHERE run = ? AND device = ?", self.run, device
        )
        return row["most"] if row else None

    def traffic(self, number: int, up: Mapping[str, int], down: Mapping[str, int]) -> None:
        """Enters the bytes that travelled since the last such line."""
        if up or down:
            body: dict[str, Any] = {"up": dict(up), "down": dict(down)}
            self.database.note("traffic", self.run, number, **body)

    def _number(self, query: str, *values: object) -> int:
        return sum(int(row[0]) for row in self.database.rows(query, *values))

    def _settle(self, number: int, device: str, outcome: str) -> None:
        self.database.write(
            "UPDATE invited SET outcome = ? WHERE run = ? AND round = ? AND device = ?",
            outcome, self.run, number, device,
        )  # fmt: skip
