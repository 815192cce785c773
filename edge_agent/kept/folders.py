"""The folders in `state_dir` of what an agent keeps, as it finds them when it starts."""

from __future__ import annotations

from pathlib import Path

from edge_agent.gate import unwritable
from edge_agent.kept.memory import MEMORY
from wire.pieces.assembly import sweep_drafts

__all__ = ["open_folders"]


def open_folders(state_dir: Path) -> tuple[Path, Path]:
    """Returns the store and the outbox, made if need be; what killed writers left there and in the memory goes."""
    store, outbox = state_dir / "store", state_dir / "outbox"
    try:
        for folder in (store, outbox):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (state_dir, store, outbox, state_dir / MEMORY):
            sweep_drafts(folder)
    except OSError as exc:
        raise unwritable(folder, exc) from exc
    return store, outbox
