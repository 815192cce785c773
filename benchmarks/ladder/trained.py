"""What takes long and is kept in the folder --work: trained models, and what was measured of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.result import Figure
from wire.pieces.assembly import write_whole

__all__ = ["CALIBRATION", "kept", "trained"]

CALIBRATION = 2000
"""Examples that choose; accuracies are stated on the 8000 others of Fashion-MNIST's test set."""

_ROOT = Path(__file__).parents[2]
_JUDGES = ("export", "models", "benchmarks/ladder")


def trained(recipe: str, settings: Sequence[str], folder: Path, seed: int, devices: int = 1) -> Any:
    """Returns the model that a run of these settings ends with, as a source for the export; a run that was interrupted
    goes on.
    """
    import torch

    from coordinator.recipe import load_recipe
    from export.ladder.run import read_source
    from simulation.run import Order, simulate

    torch.set_num_threads(1)
    seeded = (*settings, f"seed={seed}", f"split.seed={seed}")
    figures = simulate(Order(load_recipe(recipe, seeded), folder, devices))
    return read_source(Path(figures["run_dir"]), calibration=CALIBRATION)


def kept(path: Path, measure: Callable[[], dict[str, Figure]]) -> dict[str, Figure]:
    """Returns the figures in a file; if they are not there, or the code that makes them was another, measures them."""
    code = _code()
    if path.exists():
        record = json.loads(path.read_text())
        if record["code"] == code:
            return dict(record["figures"])
    figures = measure()
    write_whole(path, json.dumps({"code": code, "figures": figures}).encode(), durable=False)
    return figures


def _code() -> str:
    files = sorted(path for part in _JUDGES for path in (_ROOT / part).rglob("*.py"))
    return sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
