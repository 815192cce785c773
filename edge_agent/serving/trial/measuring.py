"""What `bitfleet-agent bench` asks of a running agent: every offered variant that can run here is measured anew.

bench.wish   a person asks; the agent deletes it when it begins
bench.json   the answer: the figures, or why there are none; the command waits for it and deletes it
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_agent.config import ModelConfig
from edge_agent.serving.policy import Choice, Finding, choose
from wire.events import log_event
from wire.messages.manifest import Variant
from wire.pieces.assembly import write_whole
from wire.spec import canonical_json

__all__ = ["WISH", "ask", "leave_answer", "next_unmeasured", "take_answer", "take_wish"]

WISH, _ANSWER = "bench.wish", "bench.json"


def ask(folder: Path) -> None:
    """Leaves a wish for the agent, and no older answer."""
    (folder / _ANSWER).unlink(missing_ok=True)
    (folder / WISH).touch()


def take_wish(folder: Path) -> bool:
    """Tells whether a person asks, who does so no more then; an answer to somebody before is gone first."""
    asked = (folder / WISH).exists()
    if asked:
        (folder / _ANSWER).unlink(missing_ok=True)
        (folder / WISH).unlink(missing_ok=True)
    return asked


def take_answer(folder: Path) -> dict[str, Any] | None:
    """Returns the answer, which is then gone; None while there is none, or only one to somebody who asked before."""
    if (folder / WISH).exists():
        return None
    try:
        answer: dict[str, Any] = json.loads((folder / _ANSWER).read_text())
    except FileNotFoundError:
        return None
    (folder / _ANSWER).unlink(missing_ok=True)
    return answer


def leave_answer(folder: Path, version: int, why: str, choice: Choice | None) -> None:
    """Writes what was measured, or why nothing could be; where the disk takes no answer, the log has it."""
    found = [asdict(one) for one in choice.found] if choice else []
    try:
        write_whole(
            folder / _ANSWER, canonical_json({"version": version, "why": why, "variants": found}), durable=False
        )
    except OSError as exc:
        log_event("bench-unanswered", version=version, why=why, reason=exc.strerror)


def next_unmeasured(
    variants: Sequence[Variant],
    findings: Mapping[str, Finding],
    policy: ModelConfig,
    free_memory_bytes: int | None,
    runtime: str,
    *,
    serving: str = "",
) -> Variant | None:
    """Returns the next variant to measure of those that can run here, whatever a person allows beside `max_size_mb`."""
    bare = ModelConfig(max_size_mb=policy.max_size_mb)
    choice = choose(variants, findings, bare, free_memory_bytes, runtime, serving=serving)
    able = {one.variant for one in choice.found if one.fits}
    return next((one for one in variants if one.name in able - set(findings)), None)
