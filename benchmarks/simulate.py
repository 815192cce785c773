"""A simulated round of 100 clients and 100,000 parameters against bare loops, and memory with 10,000 devices.

The loops do for the same clients what a round amounts to, train each from the model and take the weighted mean, and
nothing else: no messages, no files, no checks, no ledger. One thread everywhere; loops and rounds take turns.

trained_over_trainer   the loop calls the project's own trainer: what is left is the simulator's own cost
trained_over_numpy     the loop is SGD written in NumPy, which for so small a net is faster than torch
idle_over_numpy        nothing is trained: noise is added to the model, in the simulator and in the loop

Training is 5 epochs of plain SGD in batches of 32 over 600 examples of Fashion-MNIST a client, on a perceptron of 126
hidden units. Each ratio is that of the processor time that the process spent, since other work on the machine disturbs
that least; wall time stands beside it.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.result import Figure, Result, at_most
from coordinator.learning.mean import Mean
from coordinator.recipe import Recipe, load_recipe
from edge_agent.config import DataConfig
from edge_agent.training.echo import echo
from models.archs import spec_of
from models.dataset import Dataset
from models.init import initial
from simulation.child import Shares
from simulation.run import Order, World, simulate
from wire.bits import Bits
from wire.messages.train import TrainSettings
from wire.params import Params, delta

__all__ = ["run"]

_EXAMPLES, _EPOCHS, _BATCH, _RATE = 600, 5, 32, 0.1
_TRAINED = ('task="fashion"', 'model="mlp-126"', f"train.epochs={_EPOCHS}", f"train.batch={_BATCH}",
            f"train.rate={_RATE}", "train.momentum=0.0", "evaluate.every=1000000")  # fmt: skip
_IDLE = ('model="vector-100000"',)
_MOST = 1.3


def run(options: Sequence[str]) -> Result:
    """Measures memory, while the process is small, and then time."""
    parser = argparse.ArgumentParser(prog="scripts/bench simulate")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--dir", default=None, help="where the files go (the system's temporary folder)")
    asked = parser.parse_args(options)
    figures: dict[str, Figure] = {"clients": asked.clients, "rounds": asked.rounds, "devices": asked.devices}
    with tempfile.TemporaryDirectory(dir=asked.dir) as folder:
        memory = _memory(Path(folder) / "memory", asked.devices, asked.clients)
        idle = _idle(Path(folder) / "idle", asked.clients, asked.rounds)
        trained = _trained(Path(folder) / "trained", asked.clients, asked.rounds)
    cpu = {**idle, **trained}
    ratios = {
        "trained_over_trainer": cpu["trained_round_cpu_s"] / cpu["trainer_loop_cpu_s"],
        "trained_over_numpy": cpu["trained_round_cpu_s"] / cpu["numpy_loop_cpu_s"],
        "idle_over_numpy": cpu["idle_round_cpu_s"] / cpu["idle_loop_cpu_s"],
    }
    own_s = cpu["idle_round_cpu_s"] - cpu["idle_loop_cpu_s"]
    requirements = [at_most(name, _MOST, ratio) for name, ratio in ratios.items()]
    requirements.append(at_most("peak_mb_growth", 5.0, memory["peak_mb_round_10"] - memory["peak_mb_round_2"]))
    own = {"simulator_cpu_ms_client": own_s * 1e3 / asked.clients}
    return Result({**figures, **memory, **cpu, **own, **ratios}, tuple(requirements))


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


@dataclass
class _Turns:
    """Watches a run: after each round the loops take their turn, and their time is not the round's."""

    loops: dict[str, Callable[[], object]]
    number: int = 0
    began: tuple[float, float] = field(default_factory=_now)
    spent: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def __call__(self, world: World) -> None:
        if world.federation.state.number == self.number and not world.federation.over:
            return
        self._note("round", self.began)
        for name, loop in self.loops.items():
            began = _now()
            loop()
            self._note(name, began)
        self.number, self.began = world.federation.state.number, _now()

    def seconds(self, of: str, name: str) -> dict[str, float]:
        """Returns the medians of wall and processor time but for the first turn, in which everything is new."""
        wall_s, cpu_s = (median(each) for each in zip(*self.spent[of][1:], strict=True))
        return {f"{name}_s": wall_s, f"{name}_cpu_s": cpu_s}

    def _note(self, name: str, began: tuple[float, float]) -> None:
        now = _now()
        self.spent.setdefault(name, []).append((now[0] - began[0], now[1] - began[1]))


def _recipe(name: str, clients: int, rounds: int, settings: Sequence[str]) -> Recipe:
    return load_recipe(name, [*settings, f"devices.goal={clients}", f"rounds={rounds + 1}"])


def _memory(folder: Path, devices: int, clients: int) -> dict[str, float]:
    peaks: dict[int, float] = {}

    def watch(world: World) -> None:
        number = world.federation.state.number
        if number not in peaks:
            peaks[number] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3

    simulate(Order(_recipe("echo", clients, 10, _IDLE), folder, devices), watch)
    return {"peak_mb_round_2": peaks[2], "peak_mb_round_10": peaks[10]}


def _idle(folder: Path, clients: int, rounds: int) -> dict[str, float]:
    base = initial(spec_of("vector-100000", (1,), 1, 1))

    def loop() -> None:
        mean = Mean()
        for at in range(clients):
            mean.fold(delta(echo(base, (1, 0, at)), base), 1.0)
        mean.result()

    turns = _Turns({"loop": loop})
    simulate(Order(_recipe("echo", clients, rounds, _IDLE), folder), turns)
    return turns.seconds("round", "idle_round") | turns.seconds("loop", "idle_loop")


def _trained(folder: Path, clients: int, rounds: int) -> dict[str, float]:
    import torch

    from edge_agent.training.trainer import fit

    torch.set_num_threads(1)
    spec, shares, recipe = (
        spec_of("mlp-126", (1, 28, 28), 10, 1),
        Shares(),
        _recipe("fedavg", clients, rounds, _TRAINED),
    )
    configs = [DataConfig("fashion", None, "iid", clients, at, recipe.split.seed) for at in range(clients)]
    data, base = [shares.examples(config, spec) for config in configs], initial(spec)
    settings = TrainSettings("fashion", _EPOCHS, _BATCH, _RATE, 0.0, 0.0)

    def loop(train: Callable[[Dataset, int], Params]) -> Params:
        mean = Mean()
        for at, own in enumerate(data):
            mean.fold(delta(train(own, at), base), float(len(own)))
        return mean.result()

    turns = _Turns(
        {
            "trainer": lambda: loop(lambda own, at: fit(base, spec, own, settings, (1, 0, at)).params),
            "numpy": lambda: loop(lambda own, at: descend(base, own, at)),
        }
    )
    simulate(Order(recipe, folder), turns)
    loops = turns.seconds("trainer", "trainer_loop") | turns.seconds("numpy", "numpy_loop")
    return turns.seconds("round", "trained_round") | loops


def descend(base: Params, data: Dataset, at: int) -> Params:
    """Returns the perceptron after the same training, written out: the floor."""
    w1, b1, w2, b2 = (values.copy() for values in base.values())
    x, y = data.x.reshape(len(data), -1), data.y
    for epoch in range(_EPOCHS):
        order = Bits.of(1, 0, at, "order", epoch).permutation(len(data))
        for start in range(0, len(data), _BATCH):
            picked = order[start : start + _BATCH]
            inputs, rows = x[picked], np.arange(len(picked))
            hidden = np.maximum(inputs @ w1.T + b1, 0)
            out = hidden @ w2.T + b2
            out = np.exp(out - out.max(1, keepdims=True))
            out /= out.sum(1, keepdims=True)
            out[rows, y[picked]] -= 1
            out *= np.float32(_RATE / len(picked))
            back = out @ w2
            back[hidden <= 0] = 0
            w2 -= out.T @ hidden
            b2 -= out.sum(0)
            w1 -= back.T @ inputs
            b1 -= back.sum(0)
    return dict(zip(base, (w1, b1, w2, b2), strict=True))
