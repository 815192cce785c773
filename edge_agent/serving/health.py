"""Whether a model that has just begun to serve does well: the window between the switch and the commit.

The application notes what fails in a small file; at the end of the window the file is probed once more, where it lies.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from edge_agent.serving.accept import stored_manifest
from edge_agent.serving.install import Means
from edge_agent.serving.policy import Finding
from edge_agent.serving.probe import probe_header
from edge_agent.serving.slots import Slot
from wire.errors import BitfleetError
from wire.spec import canonical_json

__all__ = ["ENOUGH", "FAILURES", "Watch", "failures_of", "note_failure"]

FAILURES = "failures"
ENOUGH = 3
"""Failures that weigh so much together send a model back: one may be a reading's fault, or a moment's."""
_MOST_BYTES = 64 * 1024
_MOST_YIELDS = 3
_LONGEST_REASON = 300


def note_failure(folder: Path, digest: str, code: str, reason: str, weight: int = ENOUGH) -> None:
    """Adds a line on a model that failed while it served; past its size limit the file grows no more."""
    entry = {"digest": digest, "code": code, "reason": reason[:_LONGEST_REASON], "weight": weight}
    line = canonical_json(entry) + b"\n"
    with (folder / FAILURES).open("ab") as file:
        if os.fstat(file.fileno()).st_size < _MOST_BYTES:
            file.write(line)


def failures_of(folder: Path, digest: str) -> list[tuple[str, str]]:
    """Returns the codes and reasons that were noted of a model, once they are enough; a torn line is passed over."""
    try:
        lines = (folder / FAILURES).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    entries = [entry for entry in map(_entry, lines) if entry[0] == digest]
    enough = sum(weight for *_, weight in entries) >= ENOUGH
    return [(code, reason) for _, code, reason, _ in entries] if enough else []


def _entry(line: str) -> tuple[str, str, str, int]:
    try:
        entry = json.loads(line)
        return str(entry["digest"]), str(entry["code"]), str(entry["reason"]), int(entry["weight"])
    except (ValueError, KeyError, TypeError):
        return "", "", "", 0


@dataclass(slots=True)
class Watch:
    """The health window of the model in `slot`, and at its end the probe.

    `yields` counts how often that gave way to training; `disturbed` tells that training began beside it all the same,
    and `slow` what the latency was when it was over the limit once.
    """

    means: Means
    slot: Slot
    ends_s: float
    yields: int = 0
    disturbed: bool = False
    slow: float | None = None

    def step(self, now_s: float, training: bool) -> Finding | None:
        """Returns the verdict once there is one: a finding with a code if the model has to go."""
        digest = str(self.slot.facts["digest"])
        noted = failures_of(self.means.folder, digest)
        if noted:
            self.means.probe.stop()
            return Finding(code="E-MODEL-HEALTH", reason=f"the application noted {noted[0][0]}: {noted[0][1]}")
        probe = self.means.probe
        if probe.busy and training and self.yields < _MOST_YIELDS:
            probe.stop()
            self.yields += 1
        if probe.busy:
            self.disturbed |= training
            found = probe.poll(now_s)
            return found if found is None else self._judged(found)
        return self._probe(now_s) if now_s >= self.ends_s and not training else None

    def due_s(self, now_s: float, training: bool) -> float:
        """Returns how long nothing is to be done here."""
        if self.means.probe.busy:
            return min(1.0, self.means.probe.due_s(now_s))
        left_s = self.ends_s - now_s
        return min(left_s, 1.0) if left_s > 0 else float("inf") if training else 0.0

    def _probe(self, now_s: float) -> Finding | None:
        store = self.means.store
        try:
            manifest = stored_manifest(store, str(self.slot.facts["manifest"]))
            variant = next(one for one in manifest.variants if one.name == self.slot.facts["variant"])
        except (BitfleetError, StopIteration) as exc:
            return Finding(code="E-MODEL-HEALTH", reason=f"it cannot be tried again: {exc}")
        header = probe_header(
            self.means.config,
            manifest,
            variant,
            path=self.slot.path,
            golden=store / manifest.golden,
            free_bytes=self.means.free_memory_bytes(),
        )
        self.disturbed = False
        self.means.probe.start(header, now_s)
        return None

    def _judged(self, found: Finding) -> Finding | None:
        """Returns the finding; a latency that is over the limit now counts as a failure too, when it is so twice.

        Beside training it says nothing: then, and after the first time, the model is probed again.
        """
        most = self.means.config.model.max_latency_ms
        if found.code or not most or found.latency_ms is None or found.latency_ms <= most:
            return found
        if self.disturbed:
            return None
        before, self.slow = self.slow, found.latency_ms
        if before is None:
            return None
        reason = f"it takes {before:.3g} and {found.latency_ms:.3g} ms now, at most {most:.3g}"
        return Finding(code="E-MODEL-HEALTH", reason=reason)
