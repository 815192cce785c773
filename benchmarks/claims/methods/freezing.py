"""FedPT on Fashion-MNIST: accuracy against the trainable share, for six freezings of each of two nets. Long.

20 devices, dirichlet:0.5, 12,000 examples, 10 a round, 1 epoch, batch 32, momentum 0.9, 60 rounds, measured every
fifth; accuracy is the mean of the last three readings. Tuned alike: each freezing is trained for 15 rounds with every
rate in RATES and a seed that no judged trial has (the `tune` trials); the better rate stands in `_CHOSEN`, and the
claim `fz-tuned` says whether it still is.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.claims.claim import Claim, Seed, at_least, at_most
from benchmarks.claims.readings import plateau
from benchmarks.claims.trial import Trial

__all__ = ["CLAIMS", "RATES", "TRIALS"]

_COMMON = (
    "task=fashion", "devices.goal=10", "split.rule=dirichlet:0.5", "split.examples=12000", "train.epochs=1",
    "train.batch=32", "train.momentum=0.9", "evaluate.every=5",
)  # fmt: skip
_FREEZINGS = {
    "leaf": {
        "full": "[]",
        "largest": "['largest']",
        "largest-conv2": "['largest', 'conv2.weight']",
        "largest-conv1": "['largest', 'conv1.weight']",
        "largest-out": "['largest', 'out.weight']",
        "conv2": "['conv2.weight']",
    },
    "cnn-32-64": {
        "full": "[]",
        "largest": "['largest']",
        "conv1": "['conv1.weight']",
        "conv2": "['conv2.weight']",
        "convs": "['conv*.weight']",
        "largest-conv2": "['largest', 'conv2.weight']",
    },
}
RATES = (0.05, 0.1)
_CHOSEN: dict[str, float] = {
    "fz-leaf-largest": 0.1,
    "fz-leaf-largest-conv2": 0.1,
    "fz-leaf-largest-out": 0.1,
    "fz-cnn-full": 0.1,
    "fz-cnn-largest": 0.1,
    "fz-cnn-conv1": 0.1,
    "fz-cnn-conv2": 0.1,
    "fz-cnn-convs": 0.1,
    "fz-cnn-largest-conv2": 0.1,
}
"""The rates that tuning chose, by trial; RATES[0] for the others."""
_TUNING_OFFSET = 100


def _name(net: str, freezing: str) -> str:
    return f"fz-{net.partition('-')[0]}-{freezing}"


_ALL = {_name(net, one): (net, freeze) for net, each in _FREEZINGS.items() for one, freeze in each.items()}


def _settings(name: str, rate: float, rounds: int) -> tuple[str, ...]:
    net, freeze = _ALL[name]
    return (*_COMMON, f"model={net}", f"freeze={freeze}", f"train.rate={rate}", f"rounds={rounds}")


def _tuning(name: str, rate: float) -> str:
    return f"{name}-tune-{rate:g}"


TRIALS = (
    *(Trial(name, "fedavg", _settings(name, _CHOSEN.get(name, RATES[0]), 60), 20, long=True) for name in _ALL),
    *(
        Trial(_tuning(name, rate), "fedavg", _settings(name, rate, 15), 20, long=True, offset=_TUNING_OFFSET)
        for name in _ALL
        for rate in RATES
    ),
)


def _cost(net: str, freezing: str) -> Callable[[Seed], float]:
    return lambda seed: plateau(seed[_name(net, "full")]) - plateau(seed[_name(net, freezing)])


def _share(net: str) -> Callable[[Seed], float]:
    """Returns: how well accuracy follows the trainable share, as the rank correlation over the freezings."""

    def value(seed: Seed) -> float:
        found = [seed[_name(net, one)] for one in _FREEZINGS[net]]
        shares = [one["params"] / one["params_with_frozen"] for one in found]
        return _rank_correlation(shares, [plateau(one) for one in found])

    return value


def _rank_correlation(first: list[float], second: list[float]) -> float:
    def ranks(values: list[float]) -> list[float]:
        return [sum(v < own for v in values) + (sum(v == own for v in values) - 1) / 2 for own in values]

    one, two = ranks(first), ranks(second)
    middle = (len(first) - 1) / 2
    top = sum((a - middle) * (b - middle) for a, b in zip(one, two, strict=True))
    size = (sum((a - middle) ** 2 for a in one) * sum((b - middle) ** 2 for b in two)) ** 0.5
    return top / size if size else 0.0


def _untuned(seed: Seed) -> float:
    """Returns how many freezings are trained with a rate that another one of RATES beats by more than a point."""
    wrong = 0
    for name in _ALL:
        by_rate = {rate: plateau(seed[_tuning(name, rate)]) for rate in RATES}
        wrong += max(by_rate.values()) - by_rate[_CHOSEN.get(name, RATES[0])] > 1.0
    return float(wrong)


_NETS = {net: tuple(_name(net, one) for one in each) for net, each in _FREEZINGS.items()}
CLAIMS = (
    Claim("fz-tuned", "fedpt, section 5", 5, "freezings whose other rate is better by more than 1 point, tuning seeds",
          tuple(_tuning(name, rate) for name in _ALL for rate in RATES), _untuned, at_most(0), "freezings", 1),
    Claim("fz-leaf-28x", "fedpt, claim 4", 5, "LEAF CNN, dense 512 frozen (28.8x): points below full training",
          ("fz-leaf-full", "fz-leaf-largest"), _cost("leaf", "largest"), at_most(1.5)),
    Claim("fz-leaf-254x", "fedpt, claim 4", 5, "LEAF CNN, dense 512 and conv2 frozen (254x; 45x was asked): points"
          " below full training",
          ("fz-leaf-full", "fz-leaf-largest-conv2"), _cost("leaf", "largest-conv2"), at_most(4)),
    *(Claim(_name(net, "share"), "fedpt, claim 4", 5, f"{net}: rank correlation of accuracy with the trainable share"
            " over six freezings", names, _share(net), at_least(0.5), "") for net, names in _NETS.items()),
)  # fmt: skip
