"""QuPeD: personal models on digits, watch and Fashion-MNIST.

A device measures on its own held-out examples. To have enough of them where training data are scarce, most of a
device's share is held out: 25 of 125 examples are trained on, or 12 of 120. The global accuracy is that of the model
the device received, on the same examples.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.claims.claim import Claim, Seed, at_least, at_most
from benchmarks.claims.readings import personal
from benchmarks.claims.trial import Trial

__all__ = ["CLAIMS", "TRIALS"]

_WARM, _FREEZES = 10, 26  # of 30 rounds: a third in full precision, the last with the weights at their centres
_COMMON = ("train.batch=16", "train.rate=0.1", "train.momentum=0.0", "evaluate.every=10", "personal.local_only=true",
           "personal.skip=[]", "personal.sharpness=20.0", "personal.temperature=2.0")  # fmt: skip
_ENOUGH = (
    *_COMMON, "task=digits", "model=mlp-32", "rounds=30", "devices.goal=6", "split.rule=classes:3",
    "split.examples=750", "train.epochs=5", "personal.held_out=0.8",
    f"personal.warm_rounds={_WARM}", f"personal.freeze_round={_FREEZES}",
    "personal.slope=5e-3", "personal.centre_rate=1e-3",
)  # fmt: skip
_SCARCE = (
    *_COMMON, "task=digits", "model=mlp-32", "rounds=100", "devices.goal=6", "split.rule=classes:5",
    "split.examples=720", "train.epochs=10", "personal.held_out=0.9",
)  # fmt: skip
_WATCH = (
    *_COMMON, "task=watch", "model=cnn1d", "rounds=60", "devices.goal=10", "split.rule=subject", "split.examples=1500",
    "train.epochs=3", "personal.held_out=0.8",
)  # fmt: skip
_FASHION = (
    *_COMMON, "task=fashion", "model=cnn-8-16", "rounds=60", "devices.goal=10", "split.rule=classes:3",
    "split.examples=2000", "train.epochs=2", "personal.held_out=0.5",
)  # fmt: skip
_FASHION_SCARCE = (
    *_COMMON, "task=fashion", "model=cnn-8-16", "rounds=100", "devices.goal=10", "split.rule=classes:5",
    "split.examples=1200", "train.epochs=5", "personal.held_out=0.8",
)  # fmt: skip


def _trial(name: str, settings: tuple[str, ...], centres: int, distil: float, *more: str) -> Trial:
    own = (f"personal.centres={centres}", f"personal.distil={distil}", "personal.mix=[{}]")
    return Trial(f"qp-{name}", "quped", (*settings, *own, *more))


TRIALS = (
    _trial("fp", _ENOUGH, 0, 0.25),
    _trial("fp-kd", _ENOUGH, 0, 0.25, "personal.global_loss=kd"),
    _trial("2bit", _ENOUGH, 4, 0.25),
    _trial("2bit-fixed", _ENOUGH, 4, 0.25, "personal.learn_centres=false"),
    _trial("1bit", _ENOUGH, 2, 0.25),
    _trial("1bit-fixed", _ENOUGH, 2, 0.25, "personal.learn_centres=false"),
    _trial("fedavg", _ENOUGH, 0, 0.0),  # without distillation the global model is FedAvg's
    _trial("scarce", _SCARCE, 0, 0.25),
    _trial("watch", _WATCH, 0, 0.25),
    _trial("fashion", _FASHION, 0, 0.25),
    _trial("fashion-scarce", _FASHION_SCARCE, 0, 0.25),
)

_Value = Callable[[Seed], float]


def _gap(better: str, worse: str) -> _Value:
    return lambda seed: personal(seed[f"qp-{better}"]) - personal(seed[f"qp-{worse}"])


def _over(name: str, other: str) -> _Value:
    """Returns: points of the personal models over another kind of model of the same run and devices."""
    return lambda seed: personal(seed[f"qp-{name}"]) - personal(seed[f"qp-{name}"], other)


def _rounds(seed: Seed, name: str, figure: str) -> list[float]:
    found = [one.get(figure) for one in seed[f"qp-{name}"]["personal_by_round"]]
    return [value for value in found if value is not None]


def _distance(seed: Seed) -> float | None:
    """Returns the weights' distance from their centres in the last round before they stand still, over the first."""
    moving = _rounds(seed, "2bit", "distance")[: _FREEZES - _WARM]
    return moving[-1] / moving[0] if moving else None


def _jump(seed: Seed) -> float | None:
    """Returns the accuracy lost in the round in which the quantised tensors are fixed at their centres."""
    found = _rounds(seed, "2bit", "accuracy_personal")
    return 100.0 * (found[_FREEZES - 1] - found[_FREEZES]) if len(found) > _FREEZES else None


_NOTE = "quped, claim"
CLAIMS = (
    Claim("qp-distance", f"{_NOTE} 8", 0, "2 bits: distance of weights to centres at the ramp's end over its start",
          ("qp-2bit",), _distance, at_most(0.5), "times"),
    Claim("qp-jump", f"{_NOTE} 8 in part", 0, "2 bits: accuracy lost when the weights are fixed at their centres (that"
          " it shrinks with the distance is not measured)",
          ("qp-2bit",), _jump, at_most(2)),
    Claim("qp-learned-1bit", f"{_NOTE} 9", 7, "1 bit: learned over fixed centres",
          ("qp-1bit", "qp-1bit-fixed"), _gap("1bit", "1bit-fixed"), at_least(3)),
    Claim("qp-2bit-price", f"{_NOTE} 10", 7, "2 bits below full precision", ("qp-fp", "qp-2bit"), _gap("fp", "2bit"),
          at_most(2)),
    Claim("qp-1bit-price", f"{_NOTE} 10", 7, "1 bit below full precision", ("qp-fp", "qp-1bit"), _gap("fp", "1bit"),
          at_most(6)),
    Claim("qp-over-global", f"{_NOTE} 11", 7, "digits, 3 classes, 25 examples: personal over the run's global model",
          ("qp-fp",), _over("fp", "global"), at_least(8)),
    Claim("qp-over-fedavg", f"{_NOTE} 11", 7, "the same over the model of plain FedAvg", ("qp-fp", "qp-fedavg"),
          lambda seed: personal(seed["qp-fp"]) - personal(seed["qp-fedavg"], "global"), at_least(8)),
    Claim("qp-fashion-over-global", f"{_NOTE} 11", 7, "Fashion-MNIST, 3 classes, 100 examples: personal over global",
          ("qp-fashion",), _over("fashion", "global"), at_least(8)),
    Claim("qp-scarce", f"{_NOTE} 12", 7, "digits, 5 classes, 12 examples, 100 rounds: personal over local, paired",
          ("qp-scarce",), _over("scarce", "local"), at_least(0)),
    Claim("qp-watch", f"{_NOTE} 12", 7, "watch by subject, 30 examples: personal over local, paired", ("qp-watch",),
          _over("watch", "local"), at_least(0)),
    Claim("qp-fashion-scarce", f"{_NOTE} 12", 7, "Fashion-MNIST, 5 classes, 24 examples, 100 rounds: personal over"
          " local, paired", ("qp-fashion-scarce",), _over("fashion-scarce", "local"), at_least(0)),
    Claim("qp-mutual", f"{_NOTE} 13", 0, "global copy taught by labels and personal model, over the latter alone",
          ("qp-fp", "qp-fp-kd"), _gap("fp", "fp-kd"), at_least(-1)),
)  # fmt: skip
