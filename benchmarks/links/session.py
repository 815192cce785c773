"""One run of the benchmark from the command line: what is missing is measured, and the sums are made."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.claims.claim import Seed
from benchmarks.claims.methods import TOGETHER
from benchmarks.claims.runner import pieces_of, run_pieces
from benchmarks.claims.session import seeds_of
from benchmarks.claims.store import Store
from benchmarks.links.linked import DOWN_BITS_S, UP_BITS_S
from benchmarks.links.measure import PARTS, measure
from benchmarks.links.wall import MEASURED, SIMULATED, wall_times
from benchmarks.result import Figure, Result, at_least

__all__ = ["add_options", "result_of", "session"]

_ROUND = ("round_s", "train_s", "rest_s", "up_bytes", "down_bytes", "counted_rounds")
_TIMED = ("rounds", "wall_s", "wall_rest_s")
_SAID = {
    "round": "from its beginning until its updates are one model; median of the rounds after the first; without the"
    " measuring of the model, which is the coordinator's alone; bytes are those of MQTT, the mean of the devices",
    "training": "all devices share the cores of this one machine, so a round's training (train_s: that of the device"
    " that was waited for) is slower than on as many boards; rest_s is the round without it. Children stay over rounds",
    "wall time": "computed from measured rounds: rounds to FedAvg's plateau less 2 points in the simulated trials"
    f" {SIMULATED['fedavg']} and {SIMULATED['combined']}, by the median round; unknown where a trial is not stored",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--seeds", type=int, default=1, help="use the seeds 1 to this")
    parser.add_argument("--fresh", action="store_true", help="measures anew, stored or not")
    parser.add_argument("--links", choices=("auto", "namespaces", "relay"), default="auto")
    parser.add_argument("--broker", choices=("auto", "mosquitto", "iotcore"), default="auto")
    parser.add_argument("--store", type=Path, metavar="DIR", help="instead of benchmarks/results/claims")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where unfinished runs lie")


def session(asked: argparse.Namespace) -> Result:
    """Measures what is missing and returns the figures of all seeds that are stored."""
    store = Store(asked.store) if asked.store else Store()
    trials = [TOGETHER.trials[name] for name in MEASURED.values()]
    work = asked.work or Path(tempfile.gettempdir()) / f"bitfleet-links-{os.getuid()}"
    run_pieces(pieces_of(trials, asked.seeds), store, work, asked.fresh, partial(_measure, asked))
    names = [*MEASURED.values(), *SIMULATED.values()]
    seeds = seeds_of(store, [TOGETHER.trials[name] for name in names])
    records = [store.read(trial, seed) for seed in range(1, asked.seeds + 1) for trial in trials]
    return result_of(seeds, [record for record in records if record])


def result_of(seeds: Sequence[Seed], records: Sequence[Mapping[str, Any]]) -> Result:
    """Returns the means over the seeds that were measured; a ratio is None if one of them has none."""
    measured = [seed for seed in seeds if all(name in seed for name in MEASURED.values())]
    figures: dict[str, Figure] = {"seeds": len(measured)}
    for name, trial in MEASURED.items():
        figures |= {f"{name}_{what}": _mean([seed[trial].get(what) for seed in measured]) for what in _ROUND}
    times = [wall_times(seed) for seed in measured]
    for what in ("goal_percent", *(f"{name}_{what}" for name in SIMULATED for what in _TIMED)):
        figures[_computed(what)] = _mean([each[what] for each in times])
    for what in ("ratio", "ratio_without_training"):
        figures[what] = _mean([each[what] for each in times])
    ratio = _mean([each["ratio"] for each in times])
    return Result(figures, (at_least("ratio", 1, ratio),), _conditions(records))


def _measure(asked: argparse.Namespace, trial: Any, seed: int, folder: Path) -> dict[str, Any]:
    return measure(trial, seed, folder, asked.broker, asked.links)


def _computed(name: str) -> str:
    return f"{name}_computed" if name.endswith("_s") else name


def _conditions(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns how it was measured, which may have been at another time than the sums were made."""
    shaped = f"{UP_BITS_S / 1e6:g} Mbit/s up and {DOWN_BITS_S / 1e6:g} Mbit/s down for each device"
    pieces = [
        {
            "trial": f"{record['trial']}.{record['seed']}",
            **record["code"],
            **{name: record["machine"][name] for name in ("cpu", "cores")},
            **{name: record["figures"][name] for name in ("links", "broker")},
            **{name: record["figures"][f"load_average_{name}"] for name in ("before", "after")},
        }
        for record in records
    ]
    return {"links": shaped, "fleet": f"the first {_fleet(records)} of {PARTS} parts", **_SAID, "measured": pieces}


def _fleet(records: Sequence[Mapping[str, Any]]) -> str:
    return "/".join(sorted({str(record["devices"]) for record in records})) or "?"


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None
