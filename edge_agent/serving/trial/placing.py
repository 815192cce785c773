"""Puts the file that an installation chose into the slot that does not serve, then makes that slot serve on trial.

What stands healthy in the other slot already serves again without either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_agent.serving.health import FAILURES
from edge_agent.serving.install import Installation
from edge_agent.serving.outcome import Shelf
from edge_agent.serving.policy import Choice
from edge_agent.serving.slots import Slot, alone, commit, file_digest, read_pointer, read_slot, renew, stage, switch
from edge_agent.serving.trial.barred import barred, is_out
from wire.errors import Declined, StateError
from wire.events import log_event
from wire.messages.manifest import Manifest
from wire.messages.rollout import Offer

__all__ = ["facts_of", "place", "serve_again", "serve_on_trial"]


def place(one: Installation, shelf: Shelf) -> str:
    """Returns what became of the chosen file: `staged`, `damaged`, or none of both as it `serves` or is `barred`."""
    manifest, choice, folder = one.manifest, one.choice, one.means.folder
    if manifest is None or choice is None or choice.variant is None:
        raise StateError("an installation that is ready has no choice", code="E-INTERNAL")
    here = shelf.serving.facts if shelf.serving else {}
    options = one.options.get(choice.variant.name, here.get("options", {}))  # none where what serves found no memory
    facts = facts_of(manifest, one.offer, choice, options)
    if shelf.serving and (here.get("manifest"), here.get("digest")) == (one.offer.manifest, choice.variant.digest):
        renew(folder, shelf.serving.name, facts, one.means.config.durable)
        return "serves"
    if barred(folder) and is_out(folder, facts):  # the first of them raises what cannot be read
        return "barred"
    try:
        with alone(folder):
            one.slot = stage(folder, one.means.store / choice.variant.digest, facts, one.means.config.durable)
    except StateError as exc:
        if exc.code != "E-DISK":
            raise
        one.damaged()
        return "damaged"
    one.phase = "staged"
    log_event("model-staged", version=manifest.version, variant=choice.variant.name, why=choice.why)
    return "staged"


def serve_on_trial(one: Installation) -> None:
    """Makes the staged model serve, unless a person was quicker and pinned another."""
    folder = one.means.folder
    with alone(folder):
        pointer = read_pointer(folder)
        if pointer is None or not pointer.pinned:
            (folder / FAILURES).unlink(missing_ok=True)
            switch(folder, one.slot, one.means.config.durable)


def serve_again(folder: Path, manifest: str, durable: bool = True) -> Slot | None:
    """Makes the other slot serve, and returns it, if this manifest's model stands there, whole and found healthy.

    A pin stands, and a trial goes on. Should it be killed on the way, the model is on trial once more.
    """
    with alone(folder):
        pointer = read_pointer(folder)
        if pointer is None or pointer.pinned or pointer.trying:
            return None
        slot = read_slot(folder, "b" if pointer.serving == "a" else "a")
        if slot is None or not slot.healthy or slot.facts["manifest"] != manifest or is_out(folder, slot.facts):
            return None
        if file_digest(slot.path) != slot.facts["digest"]:
            return None
        (folder / FAILURES).unlink(missing_ok=True)
        switch(folder, slot.name, durable)
        commit(folder, durable)
    log_event("model-serves-again", version=slot.version, variant=slot.facts["variant"])
    return slot


def facts_of(manifest: Manifest, offer: Offer, choice: Choice, options: Mapping[str, str]) -> dict[str, Any]:
    """Returns what a slot says of its model: all that the application and a later probe need."""
    variant = choice.variant
    if variant is None:
        raise Declined(choice.why, code="E-MODEL-POLICY")
    return {
        "version": manifest.version,
        "manifest": offer.manifest,
        "fleet": manifest.fleet,
        "model": manifest.model,
        "content": manifest.content,
        "variant": variant.name,
        "profile": variant.profile,
        "bits": variant.bits,
        "digest": variant.digest,
        "bytes": variant.size,
        "input": list(manifest.input),
        "outputs": manifest.outputs,
        "labels": list(manifest.labels),
        "preprocessing": manifest.preprocessing,
        "why": choice.why,
        "found": [asdict(one) for one in choice.found],
        "options": dict(options),
    }
