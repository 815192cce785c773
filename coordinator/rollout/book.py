"""The book of roll-outs: which versions were published, where each roll-out and each of its devices stands.

Every entry also goes to the ledger, under the roll-out's name. `offer` tells of a device's retained offer: empty before
it was made, `out`, `withdrawing` until the broker has taken the empty message, `withdrawn`. A late device keeps the
offer of a roll-out that is done, until a newer one of its fleet begins.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coordinator.rollout.stages import OVER, STAGES, Member, Rollout, begun
from coordinator.state.database import Database
from wire.errors import StateError
from wire.messages.manifest import Manifest
from wire.messages.rollout import decode_model_report, encode_model_report

__all__ = ["Published", "RolloutBook"]


@dataclass(frozen=True, slots=True)
class Published:
    """A version and the blob of its manifest."""

    version: int
    digest: str
    size: int


@dataclass(slots=True)
class RolloutBook:
    """Reads and writes the entries; writes only within a change of the database."""

    database: Database

    def next_version(self) -> int:
        """Returns one more than the highest version that was ever published here."""
        row = self._row("SELECT max(version) AS highest FROM manifests")
        return 1 + (row["highest"] or 0 if row else 0)

    def published(self, version: int) -> Published:
        """Returns a version's manifest."""
        row = self._row("SELECT * FROM manifests WHERE version = ?", version)
        if row is None:
            raise StateError(f"there is no version {version} here", remedy="`bitfleet manifest list` lists them")
        return Published(version, row["digest"], row["bytes"])

    def versions(self) -> list[dict[str, Any]]:
        """Returns what was published, in order."""
        return [dict(row) for row in self._rows("SELECT * FROM manifests ORDER BY version")]

    def last_created_s(self, fleet: str) -> int:
        """Returns when the newest version of a fleet says it was made; 0 without one."""
        row = self._row("SELECT max(created) AS last FROM manifests WHERE fleet = ?", fleet)
        return int(row["last"] or 0) if row else 0

    def enter(self, manifest: Manifest, at: Published, rollout: Rollout) -> None:
        """Enters a new version and its roll-out."""
        self.database.write(
            "INSERT INTO manifests VALUES (?, ?, ?, ?, ?, ?, ?)",
            manifest.version, manifest.fleet, manifest.model, manifest.content, at.digest, at.size, manifest.created_s,
        )  # fmt: skip
        self.database.write(
            "INSERT INTO rollouts (rollout, fleet, version, status, stage, stage_s, without, created) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            rollout.name, manifest.fleet, rollout.version, rollout.status, rollout.stage, rollout.stage_s,
            _joined(rollout), time.time(),
        )  # fmt: skip
        for place, member in enumerate(rollout.members):
            self.database.write(
                "INSERT INTO rollout_devices (rollout, device, place, stage, outcome, late, changes) "
                "VALUES (?, ?, ?, -1, '', 0, 0)",
                rollout.name, member.device, place,
            )  # fmt: skip
        self._supersede(manifest.fleet, rollout.name)
        self.database.note(
            "rollout", rollout.name, status=rollout.status, version=rollout.version, manifest=at.digest,
            content=manifest.content, devices=[member.device for member in rollout.members], key=manifest.key,
        )  # fmt: skip

    def load(self, name: str) -> Rollout:
        """Returns a roll-out as it was saved; the clock of its stage starts anew."""
        row = self._row("SELECT * FROM rollouts WHERE rollout = ?", name)
        if row is None:
            raise StateError(f"there is no roll-out {name!r} here", remedy="leave the name out for the newest")
        query = "SELECT * FROM rollout_devices WHERE rollout = ? ORDER BY place"
        return Rollout(
            name=name,
            version=row["version"],
            members=tuple(_member(one) for one in self._rows(query, name)),
            status=row["status"],
            stage=row["stage"],
            stage_s=row["stage_s"],
            without=frozenset(row["without"].split()),
            reason=row["reason"],
        )

    def newest(self) -> str:
        """Returns the name of the newest roll-out."""
        row = self._row("SELECT rollout FROM rollouts ORDER BY version DESC LIMIT 1")
        if row is None:
            raise StateError("there are no roll-outs here", remedy="start one with `bitfleet rollout start`")
        return str(row["rollout"])

    def newest_of(self, fleet: str) -> str:
        """Returns the name of a fleet's newest roll-out; empty if there is none."""
        row = self._row("SELECT rollout FROM rollouts WHERE fleet = ? ORDER BY version DESC LIMIT 1", fleet)
        return str(row["rollout"]) if row else ""

    def unfinished(self) -> str | None:
        """Returns the name of the one roll-out that is not over, or None."""
        row = self._row(f"SELECT rollout FROM rollouts WHERE status NOT IN {OVER!r} ORDER BY version DESC LIMIT 1")  # noqa: S608
        return str(row["rollout"]) if row else None

    def fleet(self, name: str) -> str:
        """Returns the fleet of a roll-out."""
        row = self._row("SELECT fleet FROM rollouts WHERE rollout = ?", name)
        return str(row["fleet"]) if row else ""

    def save(self, before: Rollout, after: Rollout) -> None:
        """Enters what changed, and which offers are to be withdrawn once the roll-out is over."""
        if _line(before) != _line(after):
            self.database.write(
                "UPDATE rollouts SET status = ?, stage = ?, without = ?, reason = ? WHERE rollout = ?",
                after.status, after.stage, _joined(after), after.reason, after.name,
            )  # fmt: skip
            self.database.note("rollout", after.name, **_line(after))
        for old, new in zip(before.members, after.members, strict=True):
            if old != new:
                self._save_member(after, old, new)
        if after.over and after.status != "done":
            for old, new in zip(before.members, after.members, strict=True):
                had = not before.over or begun(old, before.version)  # also who had begun then, and did not get there
                if new.stage >= 0 and had and not begun(new, after.version):
                    self._mark(after.name, new.device, "withdrawing")

    def withdrawals(self, fleet: str) -> list[tuple[str, str]]:
        """Returns (roll-out, device) of every offer of a fleet that the broker may keep and that is to go.

        A device to which a newer roll-out has made an offer needs none of it.
        """
        query = (
            "SELECT d.rollout, d.device, d.offer FROM rollout_devices d JOIN rollouts r ON r.rollout = d.rollout "
            "WHERE r.fleet = ? AND d.offer != '' ORDER BY r.version, d.device"
        )
        newest = {row["device"]: (row["rollout"], row["offer"]) for row in self._rows(query, fleet)}
        return [(name, device) for device, (name, offer) in newest.items() if offer == "withdrawing"]

    def withdrawn(self, name: str, device: str) -> None:
        """Enters that the broker keeps an offer no more."""
        self._mark(name, device, "withdrawn")

    def wish(self, name: str, wish: str) -> None:
        """Leaves a person's wish for the process that has the roll-out; the last one counts."""
        self.database.write("UPDATE rollouts SET wish = ? WHERE rollout = ?", wish, name)
        self.database.note("wish", name, wish=wish)

    def pending_wish(self, name: str) -> str:
        """Returns the wish that was left, or an empty text."""
        row = self._row("SELECT wish FROM rollouts WHERE rollout = ?", name)
        return str(row["wish"]) if row else ""

    def granted(self, name: str, wish: str) -> None:
        """Takes a wish away, unless another one has been left meanwhile."""
        self.database.write("UPDATE rollouts SET wish = '' WHERE rollout = ? AND wish = ?", name, wish)

    def rests(self, rollout: Rollout) -> bool:
        """Tells whether only a person could do more: it is held, or over with no offer left that should not be."""
        return rollout.status == "held" or (rollout.over and not self.withdrawals(self.fleet(rollout.name)))

    def fault(self, name: str) -> str:
        """Returns why the process at work has left a roll-out alone; empty if it has not."""
        row = self._row("SELECT value FROM facts WHERE name = ?", f"fault {name}")
        return str(row["value"]) if row else ""

    def set_fault(self, name: str, reason: str) -> None:
        """Enters why a roll-out is left alone, and takes away the wish that may be why; empty: it is not left alone."""
        self.database.write("DELETE FROM facts WHERE name = ?", f"fault {name}")
        if reason:
            self.database.write("INSERT INTO facts VALUES (?, ?)", f"fault {name}", reason)
            self.database.write("UPDATE rollouts SET wish = '' WHERE rollout = ?", name)
        self.database.note("fault", name, reason=reason)

    def traffic(self, name: str, up: Mapping[str, int], down: Mapping[str, int]) -> None:
        """Enters the bytes that travelled since the last such line."""
        if up or down:
            self.database.note("traffic", name, up=dict(up), down=dict(down))

    def _save_member(self, rollout: Rollout, old: Member, new: Member) -> None:
        offered = old.stage < 0 <= new.stage
        self.database.write(
            "UPDATE rollout_devices SET stage = ?, outcome = ?, late = ?, changes = ?, report = ? "
            "WHERE rollout = ? AND device = ?",
            new.stage, new.outcome, int(new.late), new.changes,
            encode_model_report(new.report) if new.report else None, rollout.name, new.device,
        )  # fmt: skip
        if offered:
            self._mark(rollout.name, new.device, "out")
        self.database.note("device-model", rollout.name, device=new.device, **_device_line(new))

    def _supersede(self, fleet: str, name: str) -> None:
        """Has the offers of older roll-outs withdrawn from devices that have not begun: there is something newer."""
        query = (
            "SELECT d.*, r.version AS version FROM rollout_devices d JOIN rollouts r ON r.rollout = d.rollout "
            "WHERE r.fleet = ? AND d.rollout != ? AND d.offer = 'out'"
        )
        for row in self._rows(query, fleet, name):
            if not begun(_member(row), row["version"]):
                self._mark(row["rollout"], row["device"], "withdrawing")

    def _mark(self, name: str, device: str, offer: str) -> None:
        query = "UPDATE rollout_devices SET offer = ? WHERE rollout = ? AND device = ?"
        self.database.write(query, offer, name, device)
        self.database.note("offer", name, device=device, offer=offer)

    def _row(self, query: str, *values: object) -> sqlite3.Row | None:
        rows = self._rows(query, *values)
        return rows[0] if rows else None

    def _rows(self, query: str, *values: object) -> list[sqlite3.Row]:
        try:
            return self.database.rows(query, *values)
        except sqlite3.OperationalError as exc:
            remedy = "a home of an older version gets its tables when `bitfleet rollout start` opens it"
            raise StateError(f"the roll-outs cannot be read: {exc}", remedy=remedy) from exc


def _member(row: sqlite3.Row) -> Member:
    report = decode_model_report(row["report"]) if row["report"] else None
    return Member(row["device"], row["stage"], row["outcome"], bool(row["late"]), row["changes"], report)


def _joined(rollout: Rollout) -> str:
    return " ".join(sorted(rollout.without))


def _line(rollout: Rollout) -> dict[str, Any]:
    return {
        "status": rollout.status, "stage": STAGES[rollout.stage], "reason": rollout.reason, "without": _joined(rollout)
    }  # fmt: skip


def _device_line(member: Member) -> dict[str, Any]:
    line: dict[str, Any] = {
        "stage": STAGES[member.stage] if member.stage >= 0 else "",
        "outcome": member.outcome,
        "late": member.late,
    }
    report = member.report
    if report is not None:
        names = ("phase", "staged", "active", "healthy", "variant", "bits", "why", "code", "reason")
        line |= {name: getattr(report, name) for name in names}
    return line
