"""ZeroFL on Fashion-MNIST at 90 and 95 %: the uplink rules and mask ratios against plain SWAT.

20 devices, dirichlet:1.0, 12,000 examples, 10 a round, rate 0.1 -> 0.01, 40 rounds. The net cnn-8-32-64-64 has three
sparse convolutions that hold 98 % of its weights: first and last layer stay dense and travel whole, so that in a net
where they are large no sparsity could give the paper's savings.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.claims.claim import Claim, Seed, at_least, at_most
from benchmarks.claims.readings import accuracy, plateau, spent
from benchmarks.claims.trial import Trial

__all__ = ["CLAIMS", "TRIALS"]

_COMMON = (
    "task=fashion", "model=cnn-8-32-64-64", "rounds=40", "devices.goal=10", "split.rule=dirichlet:1.0",
    "split.examples=12000", "train.epochs=1", "train.batch=32", "train.momentum=0.0", "train.rate=0.1",
    "evaluate.every=4",
)  # fmt: skip
_FALLING = "train.final_rate=0.01"
_RULES = {"weights": ("weights", "weights"), "diff-on-top": ("delta", "weights"), "top-diff": ("delta", "values")}
_SAVINGS = {90: {0: 4.3, 10: 2.3, 20: 1.6}, 95: {0: 7.4, 10: 3.0, 20: 1.9}}
_DENSE = "uplink.whole=['*.bias', 'first', 'last']"


def _swat(sparsity: int) -> str:
    return f"train.transforms=[{{ transform = 'swat', sparsity = {sparsity / 100} }}]"


def _plain(name: str, sparsity: int, *settings: str, stops: int = 0) -> Trial:
    return Trial(f"zf-{name}", "fedavg", (*_COMMON, _swat(sparsity), *settings), devices=20, stops=stops)


def _sent(sparsity: int, rule: str, mask: int) -> Trial:
    kind, by = _RULES[rule]
    share = round((100 - sparsity + mask) / 100, 2)
    stages = f"uplink.stages=[{{ stage = 'topk', share = {share}, by = '{by}' }}]"
    settings = (_FALLING, f"uplink.kind={kind}", "uplink.scope=tensor", _DENSE, stages)
    return _plain(f"{sparsity}-{rule}-{mask}", sparsity, *settings)


TRIALS = (
    _plain("70-plain", 70, _FALLING),
    _plain("90-plain", 90, _FALLING, stops=20),
    _plain("95-plain", 95, _FALLING),
    _plain("90-constant", 90),
    *(_plain(f"{sparsity}-even", sparsity, _FALLING, "split.rule=iid") for sparsity in (90, 95)),
    *(_sent(sparsity, "weights", mask) for sparsity in (90, 95) for mask in (0, 10, 20)),
    *(_sent(sparsity, rule, mask) for sparsity in (90, 95) for rule in ("diff-on-top", "top-diff") for mask in (0, 20)),
)

_Value = Callable[[Seed], float]


def _below(sparsity: int, rule: str, mask: int) -> _Value:
    """Returns: points of a rule below plain SWAT."""
    return lambda seed: plateau(seed[f"zf-{sparsity}-plain"]) - plateau(seed[f"zf-{sparsity}-{rule}-{mask}"])


def _saving(sparsity: int, mask: int) -> _Value:
    """Returns: uplink of plain SWAT over that of a mask ratio."""
    return lambda seed: (
        spent(seed[f"zf-{sparsity}-plain"])[-1] / spent(seed[f"zf-{sparsity}-weights-{mask}"])[-1]
    )  # fmt: skip


def _collapse(sparsity: int) -> _Value:
    """Returns: points lost when all weights are used instead of the active ones."""
    name = f"zf-{sparsity}-plain"
    return lambda seed: accuracy(seed[name]) - accuracy(seed[name], "accuracy_unmasked")


def _near_best(sparsity: int) -> _Value:
    """Returns: points of top-k weights at ratio 0.2 over the better of the two other rules."""

    def value(seed: Seed) -> float:
        others = [plateau(seed[f"zf-{sparsity}-{rule}-20"]) for rule in ("diff-on-top", "top-diff")]
        return plateau(seed[f"zf-{sparsity}-weights-20"]) - max(others)

    return value


def _gap(better: str, worse: str) -> _Value:
    return lambda seed: plateau(seed[better]) - plateau(seed[worse])


def _overlap(seed: Seed) -> float:
    """Returns the mean share of values other than zero in the sparse layers of the averaged top-10 % weights."""
    shares = seed["zf-90-weights-0"]["nonzero"]
    inner = list(shares.values())[1:-1]
    return float(sum(inner) / len(inner))


def _stays(seed: Seed) -> float:
    """Returns how much of the largest weights stays where it is from round 20 to 40, in the worst layer."""
    kept: list[float] = list(seed["zf-90-plain"]["positions_kept"]["20-40"].values())
    return min(kept[1:-1])


def _skew(seed: Seed) -> float:
    """Returns what going from 90 to 95 % costs on skewed shares more than on even ones."""
    return _gap("zf-90-plain", "zf-95-plain")(seed) - _gap("zf-90-even", "zf-95-even")(seed)


def _of(sparsity: int, *rules: str) -> tuple[str, ...]:
    return tuple(f"zf-{sparsity}-{rule}" for rule in rules)


_BOTH = (90, 95)
_NOTE = "zerofl, claim"
CLAIMS = (
    *(Claim(f"zf-{sp}-{rule}-20", f"{_NOTE} T3", 6, f"{sp} %: {rule} with mask ratio 0.2 below plain SWAT",
            _of(sp, "plain", f"{rule}-20"), _below(sp, rule, 20), at_most(2)) for sp in _BOTH for rule in _RULES),
    *(Claim(f"zf-{sp}-ratio-0", f"{_NOTE} T2", 6, f"{sp} %: mask ratio 0.1 over mask ratio 0 (top-k weights)",
            _of(sp, "weights-10", "weights-0"), _gap(f"zf-{sp}-weights-10", f"zf-{sp}-weights-0"), at_least(2))
      for sp in _BOTH),
    *(Claim(f"zf-{sp}-{rule}-0", "zerofl, beside T2", 6, f"{sp} %: {rule}, mask ratio 0.2 (T2 has 0.1) over mask"
            " ratio 0",
            _of(sp, f"{rule}-20", f"{rule}-0"), _gap(f"zf-{sp}-{rule}-20", f"zf-{sp}-{rule}-0"), at_least(2))
      for sp in _BOTH for rule in ("diff-on-top", "top-diff")),
    *(Claim(f"zf-{sp}-unmasked", f"{_NOTE} T5", 6, f"{sp} %: lost when evaluated with all weights", _of(sp, "plain"),
            _collapse(sp), at_least(20)) for sp in _BOTH),
    *(Claim(f"zf-{sp}-saving-{mask}", "zerofl, table 1", 6, f"{sp} %, mask ratio {mask / 100:g}: uplink saved",
            _of(sp, "plain", f"weights-{mask}"), _saving(sp, mask), at_least(paper), "times")
      for sp, savings in _SAVINGS.items() for mask, paper in savings.items()),
    Claim("zf-order-70-90", f"{_NOTE} T1", 0, "plain SWAT at 70 % over 90 %: not below it, but for noise",
          ("zf-70-plain", "zf-90-plain"), _gap("zf-70-plain", "zf-90-plain"), at_least(-0.5)),
    Claim("zf-order-90-95", f"{_NOTE} T1", 0, "plain SWAT at 90 % over 95 %", _of(90, "plain") + _of(95, "plain"),
          _gap("zf-90-plain", "zf-95-plain"), at_least(0)),
    Claim("zf-order-skew", f"{_NOTE} T1", 0, "what 95 % costs over 90 %: more on skewed shares than on even ones",
          _of(90, "plain", "even") + _of(95, "plain", "even"), _skew, at_least(0)),
    *(Claim(f"zf-{sp}-near-best", f"{_NOTE} T4", 0, f"{sp} %: top-k weights 0.2 over the better of the other two rules",
            _of(sp, *(f"{rule}-20" for rule in _RULES)), _near_best(sp), at_least(-1)) for sp in _BOTH),
    Claim("zf-overlap", f"{_NOTE} T6", 0, "share of values other than zero after averaging ten devices' top 10 %"
          " (0.65 if they were independent)", _of(90, "weights-0"), _overlap, at_most(0.45), ""),
    Claim("zf-positions", f"{_NOTE} T7", 0, "90 %, round 20 to 40: Jaccard index of the largest tenth's positions,"
          " least of the sparse layers (0.05 by chance)", _of(90, "plain"), _stays, at_least(0.5), ""),
    Claim("zf-falling-rate", f"{_NOTE} T8", 0, "falling over constant rate, plain SWAT at 90 %",
          ("zf-90-plain", "zf-90-constant"), _gap("zf-90-plain", "zf-90-constant"), at_least(0)),
)  # fmt: skip
