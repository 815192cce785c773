"""What stands on the disk of a device's models: the slots, what became of the last offer, and the report of both."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from edge_agent.config import AgentConfig
from edge_agent.fetch import prune
from edge_agent.gate import disk_failure
from edge_agent.info import runtime_version
from edge_agent.serving.accept import stored_manifest
from edge_agent.serving.nested.portion import bundles_of
from edge_agent.serving.slots import POINTER, Pointer, Slot, alone, read_pointer, read_slot, settle
from edge_agent.serving.trial.barred import is_out, parted
from wire.errors import BitfleetError
from wire.events import log_event
from wire.messages.rollout import Found, ModelReport, Offer
from wire.pieces.assembly import sweep_drafts, write_whole
from wire.spec import canonical_json

__all__ = [
    "PASSING",
    "Books",
    "Outcome",
    "Shelf",
    "basis_of",
    "found_of",
    "load_outcome",
    "model_report",
    "refusal",
    "save_outcome",
    "stamp_of",
]

_FILE = "outcome.json"
_LONGEST_REASON = 400
PASSING = ("E-BLOB", "E-DISK", "E-DISK-SPACE", "E-INSTALL", "E-MEMORY", "E-STATE", "E-MODEL-EXPIRED")
"""What these codes stand for goes by, and says nothing of a model."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the offer of a manifest ended. `basis` names the settings and the runtime that it ended under."""

    manifest: str = ""
    version: int = 0
    phase: str = "none"
    code: str = ""
    reason: str = ""
    basis: str = ""
    found: tuple[Found, ...] = ()

    def settles(self, manifest: str, basis: str) -> bool:
        """Tells whether there is nothing left to do about a manifest, should it be offered again."""
        return self.manifest == manifest and self.basis == basis and self.code not in PASSING


@dataclass(frozen=True, slots=True)
class Shelf:
    """The slots and the pointer as they stand on the disk."""

    pointer: Pointer | None = None
    serving: Slot | None = None
    good: Slot | None = None
    staged: int = 0

    @property
    def pinned(self) -> int:
        """Returns the version that a person pinned, or 0."""
        return self.pointer.pinned if self.pointer else 0

    @classmethod
    def look(cls, folder: Path) -> Shelf:
        """Returns what is on the disk now."""
        pointer = read_pointer(folder)
        held = {name: slot for name in ("a", "b") if (slot := read_slot(folder, name)) is not None}
        staged = max((slot.version for slot in held.values()), default=0)
        if pointer is None:
            return cls(staged=staged)
        good = held.get(pointer.previous if pointer.trying else pointer.serving)
        return cls(pointer, held.get(pointer.serving), good if good and good.healthy else None, staged)


@dataclass(slots=True)
class Books:
    """The slots and the outcome, read again whenever the pointer has changed: a person's command may have done that."""

    config: AgentConfig
    folder: Path
    shelf: Shelf = field(default_factory=Shelf)
    outcome: Outcome = field(default_factory=Outcome)
    seen: tuple[tuple[int, int], ...] = ()
    weighed: tuple[tuple[int, int], ...] = ()

    def start(self) -> None:
        """Puts right what a kill left behind."""
        for place in (self.folder, self.folder / "a", self.folder / "b"):
            sweep_drafts(place)
        before, what = Shelf.look(self.folder), ""
        try:
            with alone(self.folder):
                pointer, what = settle(self.folder, self.config.durable)
            if what:
                log_event("model-settled", what=what, serving=pointer.serving if pointer else "none")
        except OSError as exc:  # a full disk is no reason not to start: a trial ends when there is room
            log_event("model-trouble", code=disk_failure(exc).code, reason=str(exc))
        self.look()
        if what and before.serving and before.pointer and before.pointer.trying:
            to_blame = is_out(self.folder, before.serving.facts)
            self.end_slot(before.serving, "rolled-back", "E-MODEL-HEALTH" if to_blame else "E-DISK", what)

    def look(self) -> None:
        """Reads what may have changed."""
        seen = stamp_of(self.folder / POINTER), stamp_of(self.folder / _FILE)
        if seen != self.seen:
            self.seen = seen
            self.shelf, self.outcome = Shelf.look(self.folder), load_outcome(self.folder)

    def unsettled(self, offer: Offer) -> bool:
        """Tells whether an offer is not settled; of what is on the disk that is asked once, until a file changes."""
        if self.weighed != self.seen and self.settled(offer):
            self.weighed = self.seen
            if self.shelf.pinned:
                log_event("offer-waits", version=offer.version, pinned=self.shelf.pinned)
        return self.weighed != self.seen

    def settled(self, offer: Offer) -> bool:
        """Tells whether there is nothing to do about an offer: pinned, ended before, or here already."""
        if self.shelf.pinned:
            return True
        serving = self.shelf.serving
        held = serving is not None and serving.facts["manifest"] == offer.manifest
        if not self.outcome.settles(offer.manifest, basis_of(self.config)):
            return held and self.outcome.manifest != offer.manifest
        if self.outcome.phase == "healthy":  # what proved itself may have had to make way for a pin
            return held
        return self.outcome.phase != "rolled-back" or not parted(self.folder, offer.manifest)  # else another may do

    def proved(self, offer: Offer) -> bool:
        """Tells whether an offer ended well here, under the settings and the runtime of now."""
        return self.outcome.settles(offer.manifest, basis_of(self.config)) and self.outcome.phase == "healthy"

    def end(
        self, manifest: str, version: int, phase: str, fault: tuple[str, str] = ("", ""), found: tuple[Found, ...] = ()
    ) -> None:
        """Writes down how an offer ended; on a full disk it is known until the next start at least."""
        code, reason = fault
        outcome = Outcome(manifest, version, phase, code, reason[:_LONGEST_REASON], basis_of(self.config), found)
        log_event("model", version=version, phase=phase, code=code, reason=reason)
        try:
            save_outcome(self.folder, outcome, self.config.durable)
        except OSError as exc:
            log_event("model-outcome-unsaved", reason=exc.strerror)
        self.seen = ()
        self.look()
        self.outcome = outcome

    def end_placed(self, offer: Offer, what: str, found: tuple[Found, ...]) -> None:
        """Writes down how an offer ended that was placed: what was staged has yet to prove itself."""
        if what == "staged":
            self.shelf = Shelf.look(self.folder)
        elif what == "serves":
            self.end(offer.manifest, offer.version, "healthy", found=found)
        elif what == "barred":
            self.end_barred(offer, found)

    def end_slot(self, slot: Slot, phase: str, code: str = "", reason: str = "") -> None:
        """Writes down how the offer ended whose model is in a slot."""
        self.end(str(slot.facts["manifest"]), slot.version, phase, (code, reason), found_of(slot))

    def end_barred(self, offer: Offer, found: tuple[Found, ...] = ()) -> None:
        """Writes down that an offer is of what was rolled back here: how, if that is what ended last."""
        last = self.outcome if self.outcome.manifest == offer.manifest else Outcome()
        fault = (last.code, last.reason) if last.phase == "rolled-back" else ("", "it was rolled back here before")
        self.end(offer.manifest, offer.version, "rolled-back", fault, found or last.found)

    def needed(self, store: Path, offered: str = "") -> frozenset[str]:
        """Returns what is to be kept in the store: of the models in service the manifests, golden answers and bundles;
        of an offer the manifest and its bundles.
        """
        kept = {offered}
        with suppress(BitfleetError):  # it may have been refused for what its manifest is
            kept |= bundles_of(stored_manifest(store, offered)) if offered else set()
        for slot in (self.shelf.serving, self.shelf.good):
            if slot is not None:
                kept.add(str(slot.facts["manifest"]))
                try:
                    manifest = stored_manifest(store, str(slot.facts["manifest"]))
                    kept |= {manifest.golden} | bundles_of(manifest)
                except BitfleetError as exc:
                    log_event("model-trouble", code=exc.code, reason=exc.message)
        return frozenset(kept)

    def tidy(self, store: Path, offer: Offer | None) -> None:
        """Deletes what nothing needs."""
        try:
            prune(store, self.needed(store, offer.manifest if offer else ""))
        except OSError as exc:
            log_event("model-trouble", code=disk_failure(exc).code, reason=str(exc))


def stamp_of(path: Path) -> tuple[int, int]:
    """Returns what changes whenever a file is written anew."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return 0, 0
    return facts.st_ino, facts.st_mtime_ns


def basis_of(config: AgentConfig) -> str:
    """Returns a short name of all that a verdict depends on beside the model: other settings may give another."""
    facts = [asdict(config.model), sorted(config.model_keys), config.fleet, config.data.held_out, runtime_version()]
    return sha256(canonical_json(facts)).hexdigest()[:16]


def load_outcome(folder: Path) -> Outcome:
    """Returns the last outcome; without a readable file nothing has ended yet."""
    try:
        table: dict[str, Any] = json.loads((folder / _FILE).read_text())
        found = tuple(Found(**entry) for entry in table.pop("found"))
        return Outcome(**table, found=found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Outcome()


def save_outcome(folder: Path, outcome: Outcome, durable: bool = True) -> None:
    """Writes the outcome."""
    write_whole(folder / _FILE, canonical_json(asdict(outcome)), durable)


def found_of(slot: Slot) -> tuple[Found, ...]:
    """Returns what was measured before the model in a slot was chosen."""
    return tuple(Found(**entry) for entry in slot.facts.get("found", ()))


def model_report(shelf: Shelf, outcome: Outcome, stage: ModelReport | None = None) -> ModelReport:
    """Returns where the device stands. `stage` has the phase, the version and the findings of what is under way."""
    facts: Mapping[str, Any] = shelf.serving.facts if shelf.serving else {}
    now = stage or _settled(shelf, outcome)
    return ModelReport(
        phase=now.phase,
        offered=now.offered,
        staged=shelf.staged,
        active=shelf.serving.version if shelf.serving else 0,
        healthy=shelf.good.version if shelf.good else 0,
        variant=str(facts.get("variant", "")),
        bits=float(facts.get("bits", 0.0)),
        why=str(facts.get("why", "")),
        code=now.code,
        reason=now.reason,
        found=now.found,
    )


def refusal(exc: BitfleetError) -> tuple[str, str]:
    """Returns the code and the reason of an error."""
    return exc.code, str(exc).removeprefix(f"{exc.code}: ")


def _settled(shelf: Shelf, outcome: Outcome) -> ModelReport:
    if shelf.pinned:
        return ModelReport("pinned", outcome.version or shelf.pinned, found=outcome.found)
    if outcome.phase != "none":
        return ModelReport(
            outcome.phase, outcome.version, code=outcome.code, reason=outcome.reason, found=outcome.found
        )
    return ModelReport("healthy", shelf.good.version) if shelf.good else ModelReport()
