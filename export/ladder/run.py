"""A trained model as a run left it: a run's folder, its final model, or the state after one round."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from export.ladder.source import Source
from models.data import load
from models.tasks import Task, task
from wire.errors import BitfleetError, ConfigError, StateError, said_by
from wire.frame import Kind, decode_frame
from wire.messages.blob import read_snapshot, read_trunk
from wire.params import Array, Params, params_digest, split
from wire.spec import ModelSpec, parse_json

__all__ = ["fit_id", "of_task", "read_source"]

_LINEAGE = ("run", "recipe", "task", "rounds", "updates", "simulated")
_MODEL, _STATE, _TRUNK = "model.blob", ".state", "trunk"
_UNFIT = re.compile(r"[^a-z0-9]+")
_MOST_NAME = 32


def read_source(path: Path, task_name: str = "", calibration: int = 256) -> Source:
    """Returns the model of a run's folder, or of a checkpoint NUMBER.state in it, with its task's test examples."""
    folder = _folder(path)
    spec, report = _spec(folder), _report(folder)
    params = _checkpoint(path, spec) if path.suffix == _STATE else _final(folder / _MODEL, spec, report)
    name = task_name or str(report.get("task") or "")
    return Source(
        spec=spec,
        params=params,
        model=fit_id(name or folder.name),
        calibration=calibration,
        still=_trunk(folder, spec),
        run=fit_id(str(report.get("run") or folder.name)),
        lineage=_lineage(report),
        **of_task(name, spec),
    )


def of_task(name: str, spec: ModelSpec) -> dict[str, Any]:
    """Returns what a source knows from its task: test examples, labels, and what inputs are; nothing without a task."""
    if not name:
        return {}
    known = _fitting(task(name), spec)
    data = load(known.data, "test") if known.data else None
    return {
        "data": data,
        "labels": known.labels,
        "preprocessing": (data.preprocessing if data else "") or "as the task's examples are",
    }


def fit_id(text: str) -> str:
    """Returns the text as a name that a manifest takes."""
    return _UNFIT.sub("-", text.lower()).strip("-")[:_MOST_NAME].rstrip("-") or "model"


def _folder(path: Path) -> Path:
    """Returns the run's folder."""
    if path.suffix == _STATE:
        return path.absolute().parent.parent
    if path.name != _MODEL and path.exists() and not path.is_dir():
        raise ConfigError(
            f"{path} is no model of a run",
            remedy=f"name a run, its folder, its {_MODEL}, or a NUMBER{_STATE} below its checkpoints/",
        )
    return path.absolute().parent if path.name == _MODEL else path.absolute()


def _fitting(known: Task, spec: ModelSpec) -> Task:
    if (known.input, known.outputs) != (spec.input, spec.outputs):
        raise ConfigError(
            f"task {known.name!r} has inputs {known.input} and {known.outputs} outputs, the model {spec.input} and"
            f" {spec.outputs}",
            remedy="give the --task that it was trained for",
        )
    return known


def _spec(folder: Path) -> ModelSpec:
    path = folder / "spec.json"
    try:
        return ModelSpec.from_json(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise StateError(
            f"{path} cannot be read: {said_by(exc)}",
            remedy="name a run of --home, the folder of a run, or a NUMBER.state below its checkpoints/",
        ) from exc


def _report(folder: Path) -> dict[str, Any]:
    path = folder / "report.json"
    if not path.exists():
        return {}
    try:
        found = parse_json(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as exc:
        raise StateError(
            f"{path} cannot be read: {said_by(exc)}", remedy="without it nothing is known but the weights"
        ) from exc
    if not isinstance(found, dict):
        raise StateError(f"{path} holds no object", remedy="without it nothing is known but the weights")
    return found


def _final(path: Path, spec: ModelSpec, report: Mapping[str, Any]) -> Params:
    if not path.exists():
        raise StateError(f"{path} is not there: the run has not ended", remedy="finish it, or name a checkpoint")
    try:
        data = path.read_bytes()
        digest = report.get("model_digest") or decode_frame(data, Kind.BLOB).header.get("target")
        return read_snapshot(data, str(digest), spec)
    except (OSError, BitfleetError) as exc:
        raise StateError(f"{path} is not the model that its run ended with: {exc}") from exc


def _checkpoint(path: Path, spec: ModelSpec) -> Params:
    """Returns the server's model in a state: its first `spec.count` numbers."""
    try:
        frame = decode_frame(path.read_bytes(), Kind.CHECKPOINT)
        values: Array = np.frombuffer(frame.payload[: 4 * spec.count], "<f4").astype(np.float32)
        params = split(values, spec.trainable)
    except (OSError, ValueError, BitfleetError) as exc:
        raise StateError(f"checkpoint {path} cannot be read: {said_by(exc)}") from exc
    if params_digest(params) != frame.header.get("model"):
        raise StateError(f"checkpoint {path} holds another model than it says")
    return params


def _trunk(folder: Path, spec: ModelSpec) -> Params | None:
    """Returns the frozen tensors that came from a file, None if the seed gives them: the run's own note tells."""
    note = folder / _TRUNK
    if not spec.frozen or not note.exists():
        return None
    try:
        digest = note.read_text("ascii").strip()
        data = (folder / "blobs" / digest).read_bytes()
        return read_trunk(data, digest, spec)
    except (OSError, ValueError, BitfleetError) as exc:
        raise StateError(
            f"the frozen tensors that {note} names cannot be read: {said_by(exc)}",
            remedy="without them it would be another model: restore the run's folder blobs/",
        ) from exc


def _lineage(report: Mapping[str, Any]) -> dict[str, Any]:
    privacy = report.get("privacy")
    epsilon = privacy.get("epsilon") if isinstance(privacy, Mapping) else None
    return {name: report.get(name) for name in _LINEAGE} | {"epsilon": epsilon}
