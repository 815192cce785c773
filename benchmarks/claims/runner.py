"""Runs trials by the simulator and stores what they give. Killed at any moment, it goes on where it stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.claims.series import model_figures, run_figures
from benchmarks.claims.store import Store
from benchmarks.claims.trial import Trial, listed, recipe_of
from benchmarks.conditions import conditions

__all__ = ["Piece", "Simulate", "pieces_of", "run_pieces", "simulated"]

Simulate = Callable[[Trial, int, Path], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Piece:
    """One trial with one seed."""

    trial: Trial
    seed: int

    @property
    def name(self) -> str:
        """Returns how the piece is called in messages and files."""
        return f"{self.trial.name}.{self.seed}"


def pieces_of(trials: Iterable[Trial], seeds: int) -> Iterator[Piece]:
    """Yields all trials with the first seed, then all with the second: a run that is cut short has whole seeds."""
    chosen = list(trials)
    return (Piece(trial, seed) for seed in range(1, seeds + 1) for trial in chosen)


def run_pieces(  # noqa: PLR0917 - each is a choice of the command line
    pieces: Iterable[Piece],
    store: Store,
    work: Path,
    fresh: bool = False,
    simulate: Simulate | None = None,
    say: Callable[[str], None] = lambda text: print(text, flush=True),
) -> list[str]:
    """Runs what is not stored yet and returns the names of the pieces that another process has at the moment."""
    elsewhere = []
    for piece in pieces:
        if not fresh and store.read(piece.trial, piece.seed):
            continue
        with store.lock(piece.trial, piece.seed) as holder:
            if holder:
                say(f"{piece.name}: process {holder} is at it")
                elsewhere.append(piece.name)
            elif fresh or not store.read(piece.trial, piece.seed):
                record = _run(piece, work / piece.name, simulate or simulated, fresh)
                store.write(piece.trial, piece.seed, record)
                say(f"{piece.name}: accuracy {record['figures'].get('accuracy')}, {record['seconds']:.0f} s")
                shutil.rmtree(work / piece.name, ignore_errors=True)
    return elsewhere


def simulated(trial: Trial, seed: int, folder: Path) -> dict[str, Any]:
    """Returns the figures of one simulated run; an interrupted one in the folder goes on."""
    import torch

    from benchmarks.claims.positions import Positions
    from simulation.run import Order, simulate

    torch.set_num_threads(1)
    positions = Positions(folder, trial.stops)
    figures = simulate(Order(recipe_of(trial, seed), folder, trial.devices), positions)
    run = Path(figures["run_dir"])
    kept = {"positions_kept": positions.kept()} if trial.stops else {}
    return {**run_figures(_ledger(run)), **model_figures(run), **kept}


def _run(piece: Piece, folder: Path, simulate: Simulate, fresh: bool) -> dict[str, Any]:
    if fresh or _other_settings(piece, folder):
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings").write_text(_settings(piece))
    started, now = perf_counter(), conditions()
    figures = simulate(piece.trial, piece.seed, folder)
    return {
        "trial": piece.trial.name,
        "seed": piece.seed,
        "devices": piece.trial.devices,
        "code": {"commit": now["commit"], "date": now["date"]},
        "machine": {name: now[name] for name in ("cpu", "cores", "machine", "python", "numpy", "torch")},
        "seconds": round(perf_counter() - started, 1),
        "settings": listed(recipe_of(piece.trial, piece.seed).to_json()),
        "figures": figures,
    }


def _settings(piece: Piece) -> str:
    return repr((recipe_of(piece.trial, piece.seed), piece.trial.devices))


def _other_settings(piece: Piece, folder: Path) -> bool:
    """Tells whether what lies in the folder was begun with other settings."""
    begun = folder / "settings"
    return folder.exists() and not (begun.exists() and begun.read_text() == _settings(piece))


def _ledger(run: Path) -> Sequence[dict[str, Any]]:
    import json

    return [json.loads(line) for line in (run / "ledger.jsonl").read_text().splitlines()]
