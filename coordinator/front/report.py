"""What a run amounts to, recomputed from the ledger alone; and the files that a run leaves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from coordinator.front.extras import method_figures
from coordinator.rounds.planner import Planner
from coordinator.state.database import Database
from wire.errors import StateError
from wire.messages.blob import snapshot_blob
from wire.pieces.assembly import write_whole

__all__ = ["figures_of", "write_report"]

Line = Mapping[str, Any]


def figures_of(lines: Iterable[Line]) -> dict[str, Any]:
    """Returns a run's figures from its ledger lines, in the order of the ledger."""
    ledger = list(lines)
    if not ledger:
        raise StateError("there is no such run here", remedy="`bitfleet runs` lists what there is")
    opened = next(line for line in ledger if line["event"] == "run")
    last = [line for line in ledger if line["event"] == "run"][-1]  # a run that was stopped may be open again
    evaluated = [line for line in ledger if line["event"] == "evaluated" and ("accuracy" in line or "error" in line)]
    by_round = [line.get("accuracy") for line in evaluated]  # unknown where the evaluation failed
    published = [line for line in ledger if line["event"] == "phase" and line["phase"] == "published"]
    refused = Counter(line["code"] for line in ledger if line["event"] == "refused")
    return {
        "run": opened["run"],
        "task": opened["recipe"]["task"],
        "recipe": opened["recipe"]["name"],
        "simulated": opened["simulated"],
        "status": last["status"],
        "reason": "" if last["status"] == "open" else last["reason"],
        "rounds": len(published),
        "abandoned": sum(line["event"] == "phase" and line["phase"] == "abandoned" for line in ledger),
        "accuracy": by_round[-1] if by_round else None,
        "accuracy_by_round": by_round,
        "bytes_up": _bytes(ledger, "up"),
        "bytes_down": _bytes(ledger, "down"),
        "updates": sum(len(line["updates"]) for line in ledger if "updates" in line),  # those in an aggregate
        "refused": dict(refused),
        "seconds": round(ledger[-1]["at"] - opened["at"], 3),
        "model_digest": published[-1]["model"] if published else None,
        **method_figures(opened, ledger),
    }


def write_report(database: Database, run: str, folder: Path, planner: Planner) -> None:
    """Leaves the final model, the ledger as JSON lines, and the figures in the run's folder."""
    lines = list(database.ledger(run))
    write_whole(folder / "model.blob", snapshot_blob(planner.state.model, planner.spec)[1])
    write_whole(folder / "ledger.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    write_whole(folder / "report.json", json.dumps(figures_of(lines), indent=2).encode())


def _bytes(ledger: list[Line], way: str) -> int:
    return sum(sum(line[way].values()) for line in ledger if line["event"] == "traffic")
