"""A model of a device's own (QuPeD), from the memory file that its owner took off the board: it is never sent."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from export.ladder.run import fit_id, of_task
from export.ladder.source import Source
from models.personal.memory import CENTRES, PERSONAL, Memory, decode_memory
from wire.errors import ConfigError, StateError, said_by
from wire.params import Array, params_digest

__all__ = ["SUFFIX", "read_own"]

SUFFIX = ".memory"
_MOST_RUN = 20


def read_own(path: Path, task_name: str = "", calibration: int = 256) -> Source:
    """Returns the model in a memory file, with its learned centres; `task_name` says what to judge it on."""
    memory = _memory(path)
    if memory.own is None:
        raise ConfigError(
            f"{path} holds no model of the device's own",
            remedy="take the memory of a run with personal models, after a round with them",
        )
    run = path.name.partition(".")[0]
    tables = {name: np.sort(values) for name, values in memory.below(CENTRES).items()}
    params = {name: _deployed(values, tables.get(name)) for name, values in memory.below(PERSONAL).items()}
    return Source(
        spec=memory.own,
        params=params,
        model=fit_id(task_name or "own"),
        calibration=calibration,
        tables=tables,
        run=fit_id(f"{run[:_MOST_RUN]}-own-{params_digest(params)[:6]}"),
        lineage={"run": run, "own": True},
        **of_task(task_name, memory.own),
    )


def _memory(path: Path) -> Memory:
    try:
        return decode_memory(path.read_bytes())
    except (OSError, StateError) as exc:
        raise StateError(f"{path} cannot be read: {said_by(exc)}", remedy="copy it from the board again") from exc


def _deployed(values: Array, centres: Array | None) -> Array:
    """Returns a tensor as the device uses it: at the nearest of its centres, however soft the training was."""
    if centres is None or centres.ndim != 1 or not centres.size:
        return values
    return centres[np.searchsorted((centres[1:] + centres[:-1]) / 2, values)]
