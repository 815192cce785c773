"""The states of a roll-out and the moves between them: pure, `f(rollout, input) -> rollout`.

    canary: one device  ->  third: a third of them, rounded up  ->  all      each when all of the one before are healthy

    running -> done                 every device that can have the model is healthy with it
    running -> stopped              two or more came to an end, and a third or more of those failed
    running -> held -> running      a failed or late device is in the way, nobody is left to wait for: a person decides
    running -> paused -> running    by a person; nothing new is offered meanwhile
    running, held, paused -> aborted

A roll-out that is over is still told what becomes of its devices: a late one may take the model after all, and who
had it may go back. Nothing moves for that, and an outcome stays what it was.

A device whose policy allows no variant, or whose memory none fits (`unfit`), or whose owner pinned another model
(`pinned`), is no failure and in nobody's way: the next device takes its place in the stage. One that is unfit looks
again now and then: it stays unfit until it has the model staged, or comes to another end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wire.messages.rollout import ModelReport

__all__ = ["OVER", "PASS_OVER", "STAGES", "Member", "Rollout", "begun", "hear", "obey", "proceed", "rested"]

STAGES = ("canary", "third", "all")
OVER = ("done", "stopped", "aborted")
PASS_OVER = ("late", "failed")
_NOT_ALLOWED, _NO_MEMORY = "E-MODEL-POLICY", "E-MEMORY"
_LOOKING = ("fetching", "checking")
_MOST_CHANGES = 200
_FEWEST_ENDS, _FAILED_SHARE = 2, 3


@dataclass(frozen=True, slots=True)
class Member:
    """One device. `stage` is the one in which it was offered the model, -1 before; `outcome` is empty until its end.

    `changes` counts its reports of this day: one that never comes to rest is taken for failed.
    """

    device: str
    stage: int = -1
    outcome: str = ""
    late: bool = False
    changes: int = 0
    report: ModelReport | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """One version on its way. `members` are in the order in which they are offered it.

    `since_s` is when the stage last got a device, by the clock of this process. `without` holds what a person said not
    to wait for: "late", "failed".
    """

    name: str
    version: int
    members: tuple[Member, ...]
    status: str = "running"
    stage: int = 0
    since_s: float = 0.0
    stage_s: float = 3600.0
    without: frozenset[str] = frozenset()
    reason: str = ""

    @property
    def over(self) -> bool:
        """Tells whether nothing more will be decided."""
        return self.status in OVER


def hear(rollout: Rollout, device: str, report: ModelReport) -> Rollout:
    """Returns the roll-out after a device's report; unless it was offered this version, nothing changes.

    Once failed is failed, whatever the device says later, until a person resumes.
    """
    for at, member in enumerate(rollout.members):
        if member.device == device:
            heard = _after(member, report, rollout)
            if heard is member:
                return rollout
            return replace(rollout, members=(*rollout.members[:at], heard, *rollout.members[at + 1 :]))
    return rollout


def proceed(rollout: Rollout, now_s: float) -> Rollout:
    """Returns the roll-out after everything that is due by itself."""
    if rollout.over:
        return rollout
    if reason := _too_many_failed(rollout):
        return replace(rollout, status="stopped", reason=reason)
    if rollout.status != "running":
        return rollout
    rollout = _with_late(rollout, now_s)
    while _passed(rollout) and rollout.stage < len(STAGES) - 1:
        rollout = replace(rollout, stage=rollout.stage + 1, since_s=now_s)
    if _passed(rollout):
        return replace(rollout, status="done", reason="")
    return _held(_with_offers(rollout, now_s))


def obey(rollout: Rollout, wish: str, now_s: float) -> Rollout:
    """Returns the roll-out after a person's wish: `pause`, `abort`, or `resume` and what not to wait for."""
    word, *without = wish.split()
    if rollout.over:
        return rollout
    if word == "abort":
        return replace(rollout, status="aborted", reason="aborted by a person")
    if word == "pause" and rollout.status == "running":
        return replace(rollout, status="paused", reason="paused by a person")
    if word == "resume":
        gone = rollout.without | (frozenset(without) & frozenset(PASS_OVER))
        members = tuple(_judged_anew(member, rollout.version, gone) for member in rollout.members)
        return replace(rollout, status="running", reason="", members=members, since_s=now_s, without=gone)
    return rollout


def rested(rollout: Rollout) -> Rollout:
    """Returns the roll-out with no reports counted yet, as on a new day: a device may say much in a year."""
    return replace(rollout, members=tuple(replace(member, changes=0) for member in rollout.members))


def begun(member: Member, version: int) -> bool:
    """Tells whether a device is healthy with the version, or has it so far that it brings it to an end by itself.

    Who failed, is unfit or pinned has come to its end without it: with the offer still there it would come back later.
    """
    if member.outcome:
        return member.outcome == "healthy"
    return member.report is not None and version in (member.report.staged, member.report.active)


def _after(member: Member, report: ModelReport, rollout: Rollout) -> Member:
    """Returns the member after its report, itself if that says nothing new."""
    known = report.offered == rollout.version or report.phase == "pinned"  # pinned before the offer is pinned after it
    again = member.outcome == "unfit" and report.phase in _LOOKING  # whether there is more memory now
    if member.stage < 0 or not known or again or report == member.report or member.changes >= _MOST_CHANGES:
        return member
    changes = member.changes + 1
    restless = changes >= _MOST_CHANGES
    stays = member.outcome == "failed" or (rollout.over and member.outcome)
    outcome = member.outcome if stays else "failed" if restless else _outcome(report, rollout.version)
    return replace(member, report=report, outcome=outcome, late=member.late and not outcome, changes=changes)


def _outcome(report: ModelReport, version: int) -> str:
    if report.phase == "refused":
        return "unfit" if _is_unfit(report) else "failed"
    if report.phase == "rolled-back":
        return "failed"
    if version == report.healthy == report.active:
        return "healthy"
    return "pinned" if report.phase == "pinned" else ""


def _is_unfit(report: ModelReport) -> bool:
    """Tells whether a board is too small for what was offered, or allows none; not if a variant broke there."""
    broken = any(one.why.startswith("E-") and not one.why.startswith(_NO_MEMORY) for one in report.found)
    return report.code == _NOT_ALLOWED or (report.code == _NO_MEMORY and not broken)


def _too_many_failed(rollout: Rollout) -> str:
    """Returns why the roll-out stops, or nothing. Who could not try the model says nothing of it."""
    ended = [member for member in rollout.members if member.outcome in ("healthy", "failed")]
    failed = [member for member in ended if member.outcome == "failed"]
    if len(ended) >= _FEWEST_ENDS and _FAILED_SHARE * len(failed) >= len(ended):
        return f"{len(failed)} of {len(ended)} devices that came to an end failed: {_named(failed)}"
    return ""


def _with_late(rollout: Rollout, now_s: float) -> Rollout:
    if now_s - rollout.since_s < rollout.stage_s:
        return rollout
    members = tuple(
        replace(member, late=True) if member.stage >= 0 and not member.outcome and not member.late else member
        for member in rollout.members
    )
    return replace(rollout, members=members) if members != rollout.members else rollout


def _in_play(rollout: Rollout) -> list[Member]:
    """Returns the members that the stages count: not those that cannot have the model or are passed over."""
    gone = {"unfit", "pinned"} | ({"failed"} if "failed" in rollout.without else set())
    late = "late" in rollout.without
    return [member for member in rollout.members if member.outcome not in gone and not (late and member.late)]


def _wanted(rollout: Rollout) -> list[Member]:
    """Returns the members that the stage is made of, those of the stages before it included.

    While nobody is healthy it is one canary, also in a later stage: the healthy one may have been lost since.
    """
    able = _in_play(rollout)
    proven = any(member.outcome == "healthy" for member in able)
    return able[: (1, -(-len(able) // 3), len(able))[rollout.stage if proven else 0]]


def _passed(rollout: Rollout) -> bool:
    """Tells whether all of the stage are healthy, and somebody is."""
    offered = [member for member in _in_play(rollout) if member.stage >= 0]
    due = {member.device: member for member in (*_wanted(rollout), *offered)}
    return bool(due) and all(member.outcome == "healthy" for member in due.values())


def _with_offers(rollout: Rollout, now_s: float) -> Rollout:
    new = {member.device for member in _wanted(rollout) if member.stage < 0}
    if not new:
        return rollout
    members = tuple(replace(one, stage=rollout.stage) if one.device in new else one for one in rollout.members)
    return replace(rollout, members=members, since_s=now_s)


def _held(rollout: Rollout) -> Rollout:
    """Returns the roll-out, held if nobody is left to wait for: what happens next is a person's decision."""
    able = [member for member in _in_play(rollout) if member.stage >= 0]
    if any(not member.outcome and not member.late for member in able):
        return rollout
    if not able:
        return replace(rollout, status="stopped", reason="no device can have the model: " + _named(rollout.members))
    failed, late = [m for m in able if m.outcome == "failed"], [m for m in able if m.late]
    parts = [f"failed: {_named(failed)}"] if failed else []
    parts += [f"no end within {rollout.stage_s:g} s: {_named(late)}"] if late else []
    return replace(rollout, status="held", reason="; ".join(parts))


def _named(members: list[Member] | tuple[Member, ...]) -> str:
    return ", ".join(f"{member.device} ({_end_of(member)})" for member in members)


def _end_of(member: Member) -> str:
    if member.late:
        return f"late, {member.report.phase}" if member.report else "late, silent"
    code = member.report.code if member.report else ""
    return code or member.outcome or "not offered"


def _judged_anew(member: Member, version: int, without: frozenset[str]) -> Member:
    outcome = _outcome(member.report, version) if member.report else ""
    return replace(member, outcome=outcome, late=member.late and "late" in without, changes=0)
