"""FedPT on digits: what freezing costs, which part matters, and the crossing under client-level privacy."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.claims.claim import Claim, Seed, at_least, at_most
from benchmarks.claims.readings import accuracy, bytes_to_accuracy, plateau, ratio, spent
from benchmarks.claims.trial import Trial

__all__ = ["CLAIMS", "TRIALS"]

_COMMON = (
    "task=digits", "rounds=40", "devices.goal=10", "split.rule=dirichlet:0.5", "train.epochs=2", "train.batch=16",
    "train.rate=0.1", "train.momentum=0.0",
)  # fmt: skip
_FREEZINGS = {
    "full": "[]",
    "w2": "['fc2.weight']",
    "w1": "['fc1.weight']",
    "w1w2": "['fc1.weight', 'fc2.weight']",
    "body": "['fc1.*', 'fc2.*']",
    "head": "['out.*']",
    "biases": "['*.weight']",
}
_NOISES = {"0": 0.0, "half": 0.5, "1": 1.0, "2": 2.0}
_BYTES = ("task=fashion", "model=leaf", "rounds=3", "devices.goal=4", "split.examples=200", "evaluate.every=3")


def _trial(name: str, *settings: str, model: str = "mlp-256-256") -> Trial:
    return Trial(f"pt-{name}", "fedavg", (*_COMMON, f"model={model}", *settings), devices=20)


TRIALS = (
    *(_trial(name, f"freeze={freeze}") for name, freeze in _FREEZINGS.items()),
    _trial("small-111", model="mlp-111-111"),
    _trial("small-36", model="mlp-36-18"),
    *(
        _trial(f"private-{name}-{text}", f"freeze={_FREEZINGS[name]}", "privacy.clip=0.5", f"privacy.noise={noise}",
               "privacy.population=20")
        for name in ("full", "w2")
        for text, noise in _NOISES.items()
    ),
    Trial("pt-bytes-full", "fedavg", _BYTES),
    Trial("pt-bytes-largest", "fedavg", (*_BYTES, "freeze=['largest']")),
)  # fmt: skip


def _cost(name: str) -> Callable[[Seed], float]:
    """Returns: points below full training."""
    return lambda seed: plateau(seed["pt-full"]) - plateau(seed[f"pt-{name}"])


def _private_gain(noise: str) -> Callable[[Seed], float]:
    """Returns: points of the frozen model over the full one at equal noise."""
    return lambda seed: accuracy(seed[f"pt-private-w2-{noise}"]) - accuracy(seed[f"pt-private-full-{noise}"])


def _off(way: str) -> Callable[[Seed], float]:
    """Returns: how far the ratio of bytes is from P/T, in percent."""

    def value(seed: Seed) -> float:
        full, part = seed["pt-bytes-full"], seed["pt-bytes-largest"]
        found = spent(full, way)[-1] / spent(part, way)[-1]
        return abs(100.0 * float(found / (part["params_with_frozen"] / part["params"])) - 100.0)

    return value


def _early(seed: Seed) -> float:
    """Returns the frozen model's lead once both have sent what full training sends in two rounds."""
    budget = spent(seed["pt-full"])[1]

    def best(figures: str) -> float:
        totals = spent(seed[figures])
        return max(
            100.0 * float(one["accuracy"]) for one in seed[figures]["evaluated"] if totals[one["rounds"] - 1] <= budget
        )

    return best("pt-w2") - best("pt-full")


def _goal_share(seed: Seed) -> float | None:
    return ratio(bytes_to_accuracy(seed["pt-w2"], 90.0), bytes_to_accuracy(seed["pt-full"], 90.0))


def _pair(noise: str) -> tuple[str, ...]:
    return (f"pt-private-full-{noise}", f"pt-private-w2-{noise}")


_NOTE = "fedpt, claim"
CLAIMS = (
    *(Claim(f"pt-bytes-{way}", f"{_NOTE} 1", 5, f"LEAF CNN, largest frozen: distance of the ratio of {way}link bytes at"
            " the counters from P/T = 28.8", ("pt-bytes-full", "pt-bytes-largest"), _off(way), at_most(1), "%")
      for way in ("up", "down")),
    Claim("pt-cost-4x", f"{_NOTE} 4", 0, "4.4 times fewer bytes (W2 frozen): points below full training",
          ("pt-full", "pt-w2"), _cost("w2"), at_most(1)),
    Claim("pt-cost-28x", f"{_NOTE} 4", 0, "27.6 times fewer bytes (W1 and W2 frozen): points below full training",
          ("pt-full", "pt-w1w2"), _cost("w1w2"), at_most(5)),
    Claim("pt-monotone", f"{_NOTE} 4", 0, "rise of accuracy when W1 is frozen beside W2: none, but for noise",
          ("pt-w2", "pt-w1w2"), lambda seed: plateau(seed["pt-w1w2"]) - plateau(seed["pt-w2"]), at_most(1)),
    Claim("pt-which-part", f"{_NOTE} 5", 0, "W2 frozen (4.4x) over W1 frozen (1.2x)",
          ("pt-w1", "pt-w2"), lambda seed: plateau(seed["pt-w2"]) - plateau(seed["pt-w1"]), at_least(0)),
    Claim("pt-biases", f"{_NOTE} 5", 0, "only biases trained: points below full training",
          ("pt-full", "pt-biases"), _cost("biases"), at_least(30)),
    Claim("pt-early", f"{_NOTE} 7", 0, "W2 frozen over full training at the bytes of two full rounds",
          ("pt-full", "pt-w2"), _early, at_least(0)),
    Claim("pt-to-90", f"{_NOTE} 8", 0, "uplink to 90 % accuracy, W2 frozen over full training",
          ("pt-full", "pt-w2"), _goal_share, at_most(0.5), "times"),
    Claim("pt-private-0", f"{_NOTE} 10", 0, "clipping without noise: full training over W2 frozen",
          _pair("0"), lambda seed: -_private_gain("0")(seed), at_least(0)),
    Claim("pt-private-1", f"{_NOTE} 10", 5, "noise multiplier 1: W2 frozen over full training",
          _pair("1"), _private_gain("1"), at_least(8)),
    Claim("pt-private-2", f"{_NOTE} 10", 0, "noise multiplier 2: W2 frozen over full training",
          _pair("2"), _private_gain("2"), at_least(8)),
    Claim("pt-private-half", f"{_NOTE} 10", 0, "noise multiplier 0.5: W2 frozen over full training",
          _pair("half"), _private_gain("half"), at_least(0)),
)  # fmt: skip
