"""What a person asks of a device's models: which there are, an answer, figures, and the way back by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

from edge_agent.config import AgentConfig
from edge_agent.gate import free_memory_bytes
from edge_agent.info import runtime_version
from edge_agent.serving.accept import stored_manifest
from edge_agent.serving.offers import FOLDER
from edge_agent.serving.outcome import Outcome, Shelf, basis_of, load_outcome, model_report, save_outcome
from edge_agent.serving.policy import Finding, choose
from edge_agent.serving.probe import Probe, probe_header
from edge_agent.serving.slots import Slot, alone, go_back, pin, read_pointer, read_slot
from edge_agent.serving.trial.findings import load_failures
from edge_agent.serving.trial.lending import serving_digest
from edge_agent.serving.trial.measuring import WISH, ask, take_answer
from wire.errors import DataError, StateError
from wire.messages.manifest import Manifest, Variant

__all__ = ["bench", "infer", "pin_version", "roll_back", "show_models", "shown"]

_GLANCE_S = 0.05
_MOST_SHOWN = 10


def show_models(config: AgentConfig) -> dict[str, Any]:
    """Returns what stands in the slots, and what became of the last offer."""
    folder = _folder(config)
    report = model_report(Shelf.look(folder), load_outcome(folder))
    pointer = read_pointer(folder)
    slots = [slot for slot in (read_slot(folder, name) for name in ("a", "b")) if slot]
    return {
        "phase": report.phase,
        "serving": pointer.serving if pointer else None,
        "pinned": pointer.pinned if pointer else 0,
        "offered": report.offered,
        "code": report.code,
        "reason": report.reason,
        "slots": [_shown(slot) for slot in slots],
        "variants": [asdict(one) for one in report.found],
    }


def infer(config: AgentConfig, path: Path) -> dict[str, Any]:
    """Returns the model's answers to the examples in a file."""
    from edge_agent.serving.model import Model  # noqa: PLC0415

    model = Model.current(config.state_dir)
    rows = _read_rows(path, model.input)
    told = model.answer(rows)
    return {
        "version": told.version,
        "variant": told.variant,
        "answers": [told.labels[at] if at < len(told.labels) else str(at) for at in told.outputs.argmax(1)],
        "outputs": [[round(float(value), 6) for value in row] for row in told.outputs],
    }


def bench(config: AgentConfig, running: bool, wait_s: float, clock: Callable[[], float]) -> dict[str, Any]:
    """Returns figures of the offered variants, measured now: of all by a running agent, else of those that are here."""
    folder = _folder(config)
    if running:
        return _have_measured(folder, wait_s, clock)
    manifest, digest = _manifest_here(folder)
    findings = {name: found for name, (found, _) in load_failures(folder, digest, basis_of(config)).items()}
    for variant in manifest.variants:
        path = _file_of(folder, variant)
        if path is not None:
            golden = folder / "store" / manifest.golden
            header = probe_header(config, manifest, variant, path=path, golden=golden, free_bytes=free_memory_bytes())
            findings[variant.name] = _measured(header, clock)
    runtime = runtime_version() or "0"
    serving = serving_digest(folder, digest)
    choice = choose(manifest.variants, findings, config.model, free_memory_bytes(), runtime, serving=serving)
    return {"version": manifest.version, "why": choice.why, "variants": [asdict(one) for one in choice.found]}


def roll_back(config: AgentConfig) -> dict[str, Any]:
    """Makes the healthy model before serve again, and says so; the version that it replaces is not taken again."""
    folder = _folder(config)
    with alone(folder):
        gone = go_back(folder, config.durable)
        by_hand = Outcome(
            str(gone.facts["manifest"]), gone.version, "rolled-back", "", "by hand, on the device", basis_of(config)
        )
        save_outcome(folder, by_hand, config.durable)
    return show_models(config)


def pin_version(config: AgentConfig, version: int) -> dict[str, Any]:
    """Makes one version serve and stay, whatever is offered; 0 ends that."""
    folder = _folder(config)
    with alone(folder):
        pin(folder, version, config.durable)
    return show_models(config)


def _folder(config: AgentConfig) -> Path:
    folder = config.state_dir / FOLDER
    if not folder.exists():
        raise StateError(f"{folder} does not exist: no model was ever offered", remedy="bitfleet rollout start")
    return folder


def _shown(slot: Slot) -> dict[str, Any]:
    names = ("version", "model", "variant", "profile", "bits", "bytes", "digest", "why")
    return {"slot": slot.name, "healthy": slot.healthy, **{name: slot.facts.get(name) for name in names}}


def _have_measured(folder: Path, wait_s: float, clock: Callable[[], float]) -> dict[str, Any]:
    """Leaves a wish for the agent, and returns its answer."""
    ask(folder)
    ends_s = clock() + wait_s
    while (answer := take_answer(folder)) is None:
        if clock() > ends_s:
            (folder / WISH).unlink(missing_ok=True)
            raise StateError(
                f"the agent gave no answer within {wait_s:.0f} s",
                remedy="it may still be at it: give it longer with --wait-s; variants that are not here come from a"
                " coordinator with a roll-out under way, and training goes first; or stop the agent and say bench"
                " again, which measures what is here",
            )
        time.sleep(_GLANCE_S)
    return answer


def _manifest_here(folder: Path) -> tuple[Manifest, str]:
    """Returns the manifest of what serves, or of the last offer, and its digest."""
    serving = Shelf.look(folder).serving
    digest = str(serving.facts["manifest"]) if serving else load_outcome(folder).manifest
    if not digest:
        raise StateError("nothing was offered yet", remedy="offer a model: bitfleet rollout start")
    return stored_manifest(folder / "store", digest), digest


def _file_of(folder: Path, variant: Variant) -> Path | None:
    held = [slot for slot in (read_slot(folder, name) for name in ("a", "b")) if slot]
    places = [folder / "store" / variant.digest, *(s.path for s in held if s.facts["digest"] == variant.digest)]
    return next((path for path in places if path.exists()), None)


def _measured(header: dict[str, Any], clock: Callable[[], float]) -> Finding:
    probe = Probe(0)
    probe.start(header, clock())
    try:
        while (found := probe.poll(clock())) is None:
            time.sleep(_GLANCE_S)
    finally:
        probe.stop()
    return found


def _read_rows(path: Path, shape: tuple[int, ...]) -> Any:
    """Returns the examples in a .npy, .npz (its `x`, or its only array) or .csv file, in rows of the model's shape."""
    import numpy as np  # noqa: PLC0415

    try:
        if path.suffix.lower() == ".csv":
            rows = _read_csv(path, prod(shape))
        else:
            held = np.load(path, allow_pickle=False)
            rows = held if isinstance(held, np.ndarray) else held["x" if "x" in held.files else held.files[0]]
    except FileNotFoundError as exc:
        raise DataError(f"{path} does not exist") from exc
    except (OSError, ValueError, KeyError, IndexError, EOFError) as exc:
        raise DataError(f"{path} holds no numbers: {exc}", remedy="give a .npy, .npz or .csv file") from exc
    if rows.shape == shape:
        return rows[None]
    if rows.ndim == 2 and rows.shape[1] == prod(shape):
        return rows.reshape(len(rows), *shape)
    return rows


def _read_csv(path: Path, size: int) -> Any:
    """Returns the examples of a CSV file, also of one to train from: label and subject are left out."""
    import numpy as np  # noqa: PLC0415

    from models.sources.table import read_table  # noqa: PLC0415

    table = read_table(path)
    kept = [at for at, name in enumerate(table.names) if name not in ("label", "subject")]
    if "label" not in table.names and len(kept) == size + 1:
        del kept[-1]  # there the label stands where nothing names it
    return table.values[:, kept].astype(np.float32)


def shown(facts: dict[str, Any]) -> str:
    """Returns facts as lines for a person."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{name}:", *("  " + "  ".join(_cell(key, cell) for key, cell in row.items()) for row in value)]
        elif isinstance(value, list):
            more = f" and {len(value) - _MOST_SHOWN} more" if len(value) > _MOST_SHOWN else ""
            lines.append(f"{name:10} {', '.join(str(one) for one in value[:_MOST_SHOWN])}{more}")
        else:
            lines.append(f"{name:10} {'none' if value in (None, '') else value}")
    return "\n".join(lines)


def _cell(name: str, value: Any) -> str:
    return f"{name}={'unknown' if value is None else json.dumps(value) if isinstance(value, str) else value}"
