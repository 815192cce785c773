"""What probes found of a manifest's variants, kept on the disk: a kill costs no second probe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from edge_agent.config import AgentConfig
from edge_agent.serving.outcome import basis_of
from edge_agent.serving.policy import Finding
from wire.pieces.assembly import write_whole
from wire.spec import canonical_json

__all__ = ["load_failures", "load_findings", "save_findings"]

_FINDINGS = "findings.json"


def load_findings(folder: Path, manifest: str, basis: str) -> dict[str, tuple[Finding, dict[str, str]]]:
    """Returns what earlier probes found of a manifest's variants, under the same settings and runtime."""
    try:
        table = json.loads((folder / _FINDINGS).read_text())
        if (table["basis"], table["manifest"]) != (basis, manifest):
            return {}
        return {name: (Finding(**entry["found"]), dict(entry["options"])) for name, entry in table["by"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def load_failures(folder: Path, manifest: str, basis: str) -> dict[str, tuple[Finding, dict[str, str]]]:
    """Returns of these findings only what says that a variant is not to be tried again."""
    return {name: both for name, both in load_findings(folder, manifest, basis).items() if both[0].code}


def save_findings(
    config: AgentConfig,
    folder: Path,
    manifest: str,
    findings: Mapping[str, Finding],
    options: Mapping[str, Mapping[str, str]],
) -> None:
    """Writes what probes found of a manifest's variants, and the session options of each."""
    by = {name: {"found": asdict(found), "options": dict(options[name])} for name, found in findings.items()}
    table = {"basis": basis_of(config), "manifest": manifest, "by": by}
    write_whole(folder / _FINDINGS, canonical_json(table), config.durable)
