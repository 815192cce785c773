"""What is shown of roll-outs and manifests: facts and rows, recomputed from the database alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from coordinator.rollout.book import RolloutBook
from coordinator.rollout.stages import STAGES, Member, Rollout
from wire.messages.manifest import Manifest
from wire.messages.rollout import ModelReport

__all__ = ["DEVICE_COLUMNS", "VERSION_COLUMNS", "facts_of", "manifest_facts"]

DEVICE_COLUMNS = ("device", "stage", "outcome", "phase", "staged/active/healthy", "variant", "bits", "code")
VERSION_COLUMNS = ("version", "fleet", "model", "content", "digest", "bytes", "created")


def facts_of(book: RolloutBook, name: str) -> dict[str, Any]:
    """Returns where a roll-out stands, with a row for each device and the bytes that it took."""
    rollout = book.load(name)
    return {
        "rollout": name,
        "version": rollout.version,
        "status": rollout.status,
        "stage": STAGES[rollout.stage],
        "reason": rollout.reason,
        "wish": book.pending_wish(name),
        "fault": book.fault(name),
        "healthy": sum(_now(member, rollout.version) == "healthy" for member in rollout.members),
        "of": len(rollout.members),
        "bits": dict(sorted(_widths(rollout).items())),
        **_traffic(book, name),
        "devices": [_row(member, rollout.version) for member in rollout.members],
    }


def manifest_facts(manifest: Manifest, digest: str) -> dict[str, Any]:
    """Returns a manifest as plain values, with its digest."""
    return {"digest": digest, **asdict(manifest), "variants": [asdict(variant) for variant in manifest.variants]}


def _row(member: Member, version: int) -> dict[str, Any]:
    report = member.report or ModelReport()
    return {
        "device": member.device,
        "stage": STAGES[member.stage] if member.stage >= 0 else "",
        "outcome": _now(member, version) or ("late" if member.late else ""),
        "phase": report.phase if member.report else "",
        "staged/active/healthy": f"{report.staged}/{report.active}/{report.healthy}" if member.report else "",
        **{fact: getattr(report, fact) if member.report else None for fact in ("staged", "active", "healthy")},
        "variant": report.variant,
        "bits": report.bits if report.variant else None,
        "why": report.why,
        "code": report.code,
        "reason": report.reason,
        "found": [asdict(found) for found in report.found],
    }


def _now(member: Member, version: int) -> str:
    """Returns the outcome that counted; `left` of a device that was healthy with the model and runs another since."""
    left = member.report is not None and member.report.active != version
    return "left" if member.outcome == "healthy" and left else member.outcome


def _widths(rollout: Rollout) -> Counter[str]:
    """Returns how many healthy devices run each width."""
    healthy = (one.report for one in rollout.members if _now(one, rollout.version) == "healthy")
    return Counter(f"{report.bits:g}" for report in healthy if report)


def _traffic(book: RolloutBook, name: str) -> dict[str, int]:
    lines = [line for line in book.database.ledger(name) if line["event"] == "traffic"]
    return {f"bytes_{way}": sum(sum(line[way].values()) for line in lines) for way in ("up", "down")}
