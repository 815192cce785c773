"""Golden inputs: what each file answers to them, and how far off another machine's answers may be.

A device takes a file only if its answers are within the tolerance and the same class is on top. So inputs are taken on
which the top class of every file leads by more than twice the tolerance: whatever stays within it cannot change the
class. Where there is no such input, the one that is nearest to it is taken alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from export.ladder.source import Source
from export.sessions import answers, open_session
from wire.messages.golden import encode_golden
from wire.params import Array

__all__ = ["golden_blob", "golden_rows", "tolerance_of"]

_MOST_ROWS = 8
_SHARE = {"float": 1e-3, "int8": 0.05}
"""Of the largest golden output: what another processor's rounding may change."""
_LEAST = 1e-4


def golden_blob(
    source: Source, entries: Sequence[Mapping[str, Any]], files: Mapping[str, bytes]
) -> tuple[bytes, dict[str, float]]:
    """Returns the blob of inputs with each file's own answers, and the tolerance of each by name."""
    sessions = {entry["name"]: open_session(files[entry["file"]]) for entry in entries}
    profiles = {entry["name"]: entry["profile"] for entry in entries}
    seen = {name: answers(session, source.candidates) for name, session in sessions.items()}
    rows = golden_rows(seen, {name: tolerance_of(seen[name], profile) for name, profile in profiles.items()})
    inputs = np.ascontiguousarray(source.candidates[rows])
    outputs = {name: answers(session, inputs) for name, session in sessions.items()}
    return encode_golden(inputs, outputs), {name: tolerance_of(outputs[name], each) for name, each in profiles.items()}


def tolerance_of(outputs: Array, profile: str) -> float:
    """Returns how far off an output may be elsewhere."""
    return _SHARE[profile] * float(np.abs(outputs).max()) + _LEAST


def golden_rows(seen: Mapping[str, Array], tolerances: Mapping[str, float]) -> npt.NDArray[np.int64]:
    """Returns the places of the inputs, in order: those with the clearest answers in the file that is least sure."""
    sure = np.min([_lead(outputs) / (2 * tolerances[name]) for name, outputs in seen.items()], axis=0)
    best = np.argsort(-sure, kind="stable")[:_MOST_ROWS]
    clear = best[sure[best] > 1]
    return np.sort(clear if len(clear) else best[:1])


def _lead(outputs: Array) -> npt.NDArray[np.float64]:
    """Returns how far the top class is ahead, without end where there is one class."""
    if outputs.shape[1] < 2:
        return np.full(len(outputs), np.inf)
    best = np.partition(outputs.astype(np.float64), -2, axis=1)
    return np.asarray(best[:, -1] - best[:, -2], np.float64)
