"""The explicit state of one run: where it stands, its books, and its post. Desk, conductor and loop all work on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from coordinator.accounts import Accounts
from coordinator.library import Library
from coordinator.post import Post, Source
from coordinator.rounds.book import Book
from coordinator.rounds.phases import Phase, RoundRow, last_round
from coordinator.rounds.planner import Planner
from coordinator.state.database import Database
from coordinator.state.registry import Registry
from wire.messages.plan import RoundPlan, decode_plan
from wire.topics import Topics
from wire.transport import Transport

__all__ = ["RunState"]


@dataclass
class RunState:
    """One run over one transport. `clock` is monotonic; `row` is the newest round.

    `cleared` are devices whose plan was taken back over this link, and `swept` says that all invitations to rounds
    before it were; what a broken link lost is done again. On the `shelf` lie the blobs of roll-outs.
    """

    run: str
    planner: Planner
    database: Database
    registry: Registry
    transport: Transport
    topics: Topics
    clock: Callable[[], float]
    sign: Callable[[bytes], bytes] | None = None
    row: RoundRow | None = None
    over: bool = False
    shelf: Path | None = None
    accounts: Accounts = field(default_factory=Accounts)
    cleared: set[str] = field(default_factory=set)
    swept: int = 0
    library: Library = field(init=False)
    source: Source = field(init=False)
    post: Post = field(init=False)

    def __post_init__(self) -> None:
        self.library = Library(self.planner.folder / "blobs", durable=self.planner.durable)
        self.source = Source(self.library, self.accounts)
        leaves = ["state", "info", "up", "ask"]
        self.post = Post(self.transport, self.topics, self.planner.session, leaves, [self.source])
        self.row = last_round(self.database, self.run)
        entered = self.database.row("SELECT status FROM runs WHERE run = ?", self.run)
        self.over = entered is not None and entered["status"] != "open"

    @property
    def book(self) -> Book:
        """Returns the run's book."""
        return Book(self.database, self.run)

    @property
    def number(self) -> int:
        """Returns the newest round's number; 0 before the first."""
        return self.row.number if self.row else 0

    @property
    def collecting(self) -> bool:
        """Tells whether the newest round takes updates."""
        return self.row is not None and self.row.phase is Phase.REPORTING

    def plan_of(self, number: int) -> RoundPlan | None:
        """Returns a round's plan, or None."""
        if self.row is not None and number == self.row.number and self.row.plan:
            return _decoded(self.row.plan)
        query = "SELECT plan FROM rounds WHERE run = ? AND round = ?"
        found = self.database.row(query, self.run, number)
        return decode_plan(found["plan"]) if found and found["plan"] else None

    def say(self, device: str, leaf: str, payload: bytes, retain: bool = False) -> None:
        """Publishes to a device and counts it; while the link is down nothing is said, and the device will ask."""
        self.post.say(self.source, device, leaf, payload, retain)

    def link_lost(self) -> None:
        """Notes that nothing of what was published is known to have arrived."""
        self.swept = 0
        self.cleared.clear()

    def invite(self) -> None:
        """Publishes the open round's plan to every device that still owes an answer."""
        if not self.collecting or self.row is None or self.row.plan is None:
            return
        for device, outcome in self.book.outcomes(self.row.number).items():
            if not outcome:
                self.cleared.discard(device)
                self.say(device, "plan", self.row.plan, retain=True)

    def withdraw(self) -> None:
        """Takes back every invitation that the broker may retain and that is not open any more, each of them once.

        A device that is invited again needs none of this, and one whose update counts in the newest round knows it.
        """
        if not self.post.online:
            return
        invitations = self.book.newest_invitations(self.swept)
        for device, number, outcome in invitations:
            if device not in self.cleared and not self._stands(number, outcome):
                self.say(device, "plan", b"", retain=True)
                self.cleared.add(device)
        standing = (number for device, number, _ in invitations if device not in self.cleared)
        self.swept = min(standing, default=self.number)
        self.cleared.intersection_update([device for device, number, _ in invitations if number >= self.swept])

    def late_welcome(self, number: int) -> bool:
        """Tells whether an update that was trained in round `number` may still count, now or in a later round."""
        want = self.planner.recipe.devices
        return want.late == "fold" and 0 <= self.number - number <= want.max_staleness

    def waits_for_its_roll_out(self, digest: str) -> bool:
        """Tells whether a blob is none of the run's, but of a model that a roll-out will go on with."""
        return self.shelf is not None and bool(digest) and (self.shelf / digest).is_file()

    def _stands(self, number: int, outcome: str) -> bool:
        """Tells whether an invitation to round `number` needs no taking back."""
        if self.over:
            return False
        if number == self.number and self.row is not None:
            settled = outcome == "accepted" and self.row.phase is not Phase.ABANDONED
            if settled or (self.collecting and outcome in ("", "refused")):
                return True
        return not outcome and self.late_welcome(number)


@lru_cache(maxsize=1)
def _decoded(plan: bytes) -> RoundPlan:
    """Returns the plan of the open round, which every update is checked against."""
    return decode_plan(plan)
