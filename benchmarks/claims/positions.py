"""Where a net's largest weights lie, after every so many rounds: whether they stay (ZeroFL, figure 3)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coordinator.learning.checkpoint import load_state
from simulation.run import World
from wire.params import Params

__all__ = ["Positions"]


@dataclass(frozen=True, slots=True)
class Positions:
    """Watches a run and notes them in `folder`, one file a stop; resumed with the run. `share` are the largest."""

    folder: Path
    every: int
    share: float = 0.1

    def __call__(self, world: World) -> None:
        """See simulation.run.Watch."""
        planner, number = world.federation.state.planner, world.federation.state.number
        for done in (number, number + 1):  # the newest round may be done, or under way
            state, path = planner.checkpoint(done - 1), self._path(done)
            if self.every and done and done % self.every == 0 and state.exists() and not path.exists():
                model = load_state(state, planner.spec).model
                self._note(path, {name: values for name, values in model.items() if values.ndim > 1})

    def kept(self) -> dict[str, dict[str, float]]:
        """Returns the Jaccard index of each layer's positions, from stop to stop: "20-40" and so on."""
        stops = sorted(int(path.stem.split("-")[1]) for path in self.folder.glob("positions-*.npz"))
        return {f"{one}-{two}": self._shared(one, two) for one, two in pairwise(stops)}

    def _note(self, path: Path, weights: Params) -> None:
        largest: dict[str, Any] = {name: self._largest(values) for name, values in weights.items()}
        draft = path.with_name("draft.npz")
        np.savez_compressed(draft, **largest)
        draft.replace(path)

    def _shared(self, one: int, two: int) -> dict[str, float]:
        with np.load(self._path(one)) as first, np.load(self._path(two)) as second:
            return {name: _jaccard(first[name], second[name]) for name in first.files}

    def _path(self, rounds: int) -> Path:
        return self.folder / f"positions-{rounds}.npz"

    def _largest(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        sizes = np.abs(values)
        count = int(np.ceil(self.share * sizes.size))
        return np.asarray(sizes >= np.partition(sizes.ravel(), -count)[-count])


def _jaccard(one: npt.NDArray[np.bool_], two: npt.NDArray[np.bool_]) -> float:
    return round(float((one & two).sum() / (one | two).sum()), 4)
