"""How a model's trial ends: the verdict is kept until it is written down, and that is done for this model only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge_agent.serving.health import Watch, failures_of
from edge_agent.serving.outcome import PASSING, Shelf, found_of
from edge_agent.serving.policy import Finding
from edge_agent.serving.slots import Slot, alone, commit, fall_back
from edge_agent.serving.trial.shortage import SHORT, Shortage, named
from wire.messages.rollout import ModelReport

__all__ = ["Trial", "on_trial"]


def on_trial(shelf: Shelf, slot: Slot) -> bool:
    """Tells whether the pointer names this model in this slot and says that it is tried: a person may change that."""
    here = shelf.serving
    if here is None or shelf.pointer is None or not shelf.pointer.trying or here.name != slot.name:
        return False
    return all(here.facts[name] == slot.facts[name] for name in ("manifest", "digest"))


@dataclass(slots=True)
class Trial:
    """A model on trial, what watches it, and its verdict once there is one.

    `short` counts probes without memory; `trouble` is the code and the reason why the verdict is not written down yet.
    """

    watch: Watch
    verdict: Finding | None = None
    short: Shortage = field(default_factory=Shortage)
    trouble: tuple[str, str] = ("", "")

    @property
    def slot(self) -> Slot:
        """Returns the slot of the model."""
        return self.watch.slot

    @property
    def report(self) -> ModelReport:
        """Returns how far it is."""
        code, reason = self.trouble
        return ModelReport("active", self.slot.version, code=code, reason=reason, found=found_of(self.slot))

    def step(self, now_s: float, training: bool) -> Finding | None:
        """Returns the verdict once there is one, and after that no other but a failure that was noted since."""
        self.trouble = ("", "")
        if self.verdict is None:
            found = self.watch.step(now_s, training)
            self.verdict = found and self._weighed(named(found), now_s)
        elif not self.verdict.code and failures_of(self.watch.means.folder, str(self.slot.facts["digest"])):
            self.verdict = self.watch.step(now_s, training)
        return self.verdict

    def due_s(self, now_s: float, training: bool) -> float:
        """Returns how long nothing is to be done here."""
        return 0.0 if self.verdict else max(0.0, self.watch.due_s(now_s, training))

    def write_down(self, folder: Path, verdict: Finding, durable: bool) -> bool:
        """Makes the pointer say what the verdict says; tells whether the model was still on trial.

        What goes for a reason that says nothing of it may come again.
        """
        with alone(folder):
            if not on_trial(Shelf.look(folder), self.slot):
                return False
            if verdict.code:
                fall_back(folder, durable, lasting=verdict.code not in PASSING)
            else:
                commit(folder, durable)
        return True

    def _weighed(self, found: Finding, now_s: float) -> Finding | None:
        """Returns a finding; where memory ran short, at first none, and the probe is run again later."""
        if found.code != SHORT or not self.short.again(self.slot.name, now_s):
            return found
        self.watch.ends_s = self.short.rest_s
        return None
