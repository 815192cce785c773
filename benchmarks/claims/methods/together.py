"""The recipe `combined` against float FedAvg on Fashion-MNIST: LEAF CNN and ResNet-8. Long.

20 devices, dirichlet:0.5, 12,000 examples, 10 a round, 100 rounds for both, measured every fifth round. The goal of
a seed is FedAvg's plateau (mean of its last three readings) less 2 points; each side's bytes are those up to its first
reading that reaches it.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.claims.claim import Claim, Seed, at_least, at_most
from benchmarks.claims.readings import bytes_to_accuracy, plateau, ratio
from benchmarks.claims.trial import Trial
from benchmarks.links.wall import MEASURED, SIMULATED, wall_ratio

__all__ = ["CLAIMS", "TRIALS"]

_COMMON = (
    "task=fashion", "devices.goal=10", "split.rule=dirichlet:0.5", "split.examples=12000", "train.epochs=1",
    "train.batch=32", "train.momentum=0.9", "evaluate.every=5",
)  # fmt: skip
_FLOAT = ("uplink.stages=[]", "downlink.stages=[]")
_RESNET = ("model=resnet8", "train.rate=0.1")

TRIALS = (
    Trial(
        "tg-leaf-fedavg", "fedavg", (*_COMMON, *_FLOAT, "model=leaf", "rounds=100", "train.rate=0.05"), 20, long=True
    ),
    Trial("tg-leaf-combined", "combined", (*_COMMON, "model=leaf", "rounds=100", "train.rate=0.05"), 20, long=True),
    Trial("tg-resnet-fedavg", "fedavg", (*_COMMON, *_FLOAT, *_RESNET, "rounds=100"), 20, long=True),
    Trial("tg-resnet-combined", "combined", (*_COMMON, *_RESNET, "freeze=[]", "rounds=100"), 20, long=True),
    # A few rounds with ten real agents behind slow links: `scripts/bench links` runs them.
    Trial("tg-links-fedavg", "fedavg", (*_COMMON, *_FLOAT, "model=leaf", "rounds=4", "train.rate=0.05"), 10, real=True),
    Trial("tg-links-combined", "combined", (*_COMMON, "model=leaf", "rounds=5", "train.rate=0.05"), 10, real=True),
)


def _fewer(net: str, way: str) -> Callable[[Seed], float | None]:
    """Returns: bytes that FedAvg needs to reach the goal over those that the recipe needs."""

    def value(seed: Seed) -> float | None:
        plain, combined = seed[f"tg-{net}-fedavg"], seed[f"tg-{net}-combined"]
        goal = plateau(plain) - 2.0
        return ratio(bytes_to_accuracy(plain, goal, way), bytes_to_accuracy(combined, goal, way))

    return value


def _reached(net: str) -> Callable[[Seed], float]:
    return lambda seed: plateau(seed[f"tg-{net}-fedavg"]) - plateau(seed[f"tg-{net}-combined"])


def _four_bits(net: str) -> Callable[[Seed], float]:
    name = f"tg-{net}-combined"
    return lambda seed: plateau(seed[name]) - plateau(seed[name], bits=4)


def _pair(net: str) -> tuple[str, ...]:
    return (f"tg-{net}-fedavg", f"tg-{net}-combined")


_TITLES = {"leaf": "LEAF CNN", "resnet": "ResNet-8"}
_LEAST = {"leaf": {"up": 300, "both": 100}, "resnet": {"up": 80}}
_SAID = {"up": "uplink bytes", "both": "bytes in both directions"}
CLAIMS = (
    *(Claim(f"tg-{net}-{way}", "combining", 8, f"{_TITLES[net]}: how many times fewer {_SAID[way]} to FedAvg's accuracy"
            " less 2 points", _pair(net), _fewer(net, way), at_least(bound), "times")
      for net, ways in _LEAST.items() for way, bound in ways.items()),
    *(Claim(f"tg-{net}-accuracy", "combining", 8, f"{_TITLES[net]}: after 100 rounds below FedAvg's", _pair(net),
            _reached(net), at_most(2)) for net in _TITLES),
    *(Claim(f"tg-{net}-4bit", "combining", 8, f"{_TITLES[net]}: 4 bits below its own full precision",
            (f"tg-{net}-combined",), _four_bits(net), at_most(1)) for net in _TITLES),
    # Computed: the rounds that the simulated trials need to the goal, by the round time that was measured.
    Claim("tg-wall-time", "combining", 8, "wall time on 10 devices with 1 Mbit/s up and 4 Mbit/s down, float FedAvg"
          " over combined (shaped links; not in the simulator)", (*SIMULATED.values(), *MEASURED.values()),
          wall_ratio, at_least(1), "times"),
)  # fmt: skip
