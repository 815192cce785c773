"""What a private run has given away: epsilon at delta, by Google's dp-accounting, with what the figure rests on.

    epsilon(privacy, rounds, devices a round)           before a run: from the recipe
    epsilon(..., joined=the steps of each device)       after it: from who took part in what

A run whose Gaussian noise is not thinned by sampling is, seen from one device, one Gaussian release of sensitivity s
(Dong, Roth and Su, Gaussian Differential Privacy, 2022; Denisov et al., Improved Differential Privacy for SGD via
Optimal Private Linear Operators on Adaptive Streams, 2022), and dp-accounting has its exact epsilon at noise z / s:

    gaussian   s^2 = how often the device took part
    tree       s^2 = the sum over the tree's nodes of (how often it took part in the node's steps)^2
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from types import ModuleType

from coordinator.recipes.sections import Privacy
from wire.errors import ConfigError, StateError

__all__ = ["Spent", "epsilon", "tree_sensitivity"]

# Whole ones only: at others the accountant's series may not converge, and it then says so on the terminal.
_ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512, 1024)
_FEW_DEVICES = 100
_LARGE_EPSILON = 10.0

_TRUST = "the coordinator is trusted: it sees every update before the noise"
_MODEL = "only the model is covered, not the losses and example counts that devices report"
_SEPARATE = "who takes part does not depend on the data"


@dataclass(frozen=True, slots=True)
class Spent:
    """An (epsilon, delta) guarantee for a device, what it rests on, and in plain words why it may mean little.

    `epsilon` is infinite where nothing is promised; `warning` is empty where there is nothing to warn of.
    """

    epsilon: float
    delta: float
    assumptions: tuple[str, ...]
    warning: str


def epsilon(privacy: Privacy, rounds: int, per_round: int, joined: Iterable[Collection[int]] | None = None) -> Spent:
    """Returns what `rounds` steps of the private mean spend; `joined` has the steps that each device counted in."""
    _check(privacy, rounds, per_round)
    value, assumptions = _spent(privacy, rounds, per_round, joined)
    return Spent(value, privacy.delta, assumptions, _warning(privacy, per_round, value))


def tree_sensitivity(steps: Collection[int], rounds: int) -> float:
    """Returns by how many C one device moves all nodes of a tree over `rounds` steps, as a Euclidean norm."""
    if any(not 1 <= step <= rounds for step in steps):
        raise StateError(f"steps {sorted(steps)[:5]} in a tree over {rounds}", remedy="count steps from 1")
    squares = 0
    for level in range(rounds.bit_length()):
        nodes = Counter((step - 1) >> level for step in steps)
        squares += sum(count**2 for index, count in nodes.items() if (index + 1) << level <= rounds)
    return math.sqrt(squares)


def _check(privacy: Privacy, rounds: int, per_round: int) -> None:
    if rounds < 0 or per_round < 1:
        raise ConfigError(f"{rounds} rounds of {per_round} devices", remedy="choose at least 0 and 1")
    if 0 < privacy.population < per_round:
        raise ConfigError(
            f"privacy.population = {privacy.population} with {per_round} devices a round",
            remedy="name all devices that could take part, or 0 if that is not known",
        )


def _spent(
    privacy: Privacy, rounds: int, per_round: int, joined: Iterable[Collection[int]] | None
) -> tuple[float, tuple[str, ...]]:
    if not rounds:
        return 0.0, ("no round has changed the model",)
    if not _noised(privacy):
        return math.inf, ()
    library = _library()
    if joined is not None:
        value, said = _from_record(library, privacy, rounds, joined)
    elif privacy.mechanism == "tree":
        value, said = _planned_tree(library, privacy, rounds, per_round)
    elif privacy.population:
        value, said = _sampled(library, privacy, rounds, per_round)
    else:
        value, said = _unsampled(library, privacy, math.sqrt(rounds)), (_one_less(f"counts in all {rounds} rounds"),)
    return value, (*said, _TRUST, _MODEL)


def _noised(privacy: Privacy) -> bool:
    return privacy.clip > 0 and privacy.noise > 0


def _one_less(how: str) -> str:
    return f"neighbours: the same fleet with one device's updates left out; that device {how}"


def _unsampled(library: ModuleType, privacy: Privacy, sensitivity: float) -> float:
    return float(library.get_epsilon_gaussian(privacy.noise / sensitivity, privacy.delta)) if sensitivity else 0.0


def _from_record(
    library: ModuleType, privacy: Privacy, rounds: int, joined: Iterable[Collection[int]]
) -> tuple[float, tuple[str, ...]]:
    tree = privacy.mechanism == "tree"
    worst = max((tree_sensitivity(s, rounds) if tree else math.sqrt(len(s)) for s in joined), default=0.0)
    said = _one_less("is the one that gave away the most, by the record of who took part")
    return _unsampled(library, privacy, worst), (said, _SEPARATE)


def _planned_tree(library: ModuleType, privacy: Privacy, rounds: int, per_round: int) -> tuple[float, tuple[str, ...]]:
    """By the triangle inequality a device that takes part k times moves the tree by at most k times as much as once."""
    times = math.ceil(rounds * per_round / privacy.population) if privacy.population else 1
    event = library.SingleEpochTreeAggregationDpEvent(privacy.noise / times, rounds)
    value = _composed(library, privacy, "REPLACE_SPECIAL", event, 1)
    how = "once in the run" if times == 1 else f"{times} times in the run ({rounds} x {per_round} / population)"
    said = f"{_one_less(f'counts at most {how}')}: the record of who took part must bear this out"
    return value, (said, _SEPARATE)


def _sampled(library: ModuleType, privacy: Privacy, rounds: int, per_round: int) -> tuple[float, tuple[str, ...]]:
    """One device replaced by another moves the sum by 2 C, so the noise is half as large beside it."""
    beside, total = privacy.noise / 2, privacy.population
    event = library.SampledWithoutReplacementDpEvent(total, per_round, library.GaussianDpEvent(beside))
    bound = library.get_epsilon_gaussian(beside / math.sqrt(rounds), privacy.delta)  # true with or without sampling
    value = min(_composed(library, privacy, "REPLACE_ONE", event, rounds), float(bound))
    poisson = library.PoissonSampledDpEvent(per_round / total, library.GaussianDpEvent(privacy.noise))
    other = _composed(library, privacy, "ADD_OR_REMOVE_ONE", poisson, rounds)
    return value, (
        "neighbours: the same fleet with one device replaced by another (twice the distance of one left out)",
        f"each round's {per_round} devices are drawn uniformly from all {total}, without replacement and in secret; "
        "where devices choose when to take part, this does not hold: leave the population out",
        f"as papers often account it (each device drawn by itself, one left out) epsilon would be {other:.3g}",
    )


def _composed(library: ModuleType, privacy: Privacy, relation: str, event: object, times: int) -> float:
    neighbours = library.NeighboringRelation[relation]
    accountant = library.rdp.RdpAccountant(orders=_ORDERS, neighboring_relation=neighbours)
    return float(accountant.compose(event, times).get_epsilon(privacy.delta))


def _warning(privacy: Privacy, per_round: int, value: float) -> str:
    least = max(privacy.population, per_round)
    parts = []
    if not _noised(privacy):
        parts.append("without clip and noise nothing is promised")
    if per_round < _FEW_DEVICES:
        parts.append(
            f"with {per_round} devices a round, noise that hides one of them also drowns the mean of the others: "
            "the promise is weak or the model poor"
        )
    if value > _LARGE_EPSILON:
        parts.append(f"epsilon {value:.3g} is above {_LARGE_EPSILON:g}: it promises next to nothing")
    if privacy.delta * least >= 1:
        parts.append(
            f"delta {privacy.delta:g} is not below 1 / {least}: publishing one device's data whole could meet it"
        )
    return "; ".join(parts)


def _library() -> ModuleType:
    try:
        import dp_accounting  # noqa: PLC0415
    except ImportError as exc:
        raise ConfigError(
            "epsilon needs the package dp-accounting", remedy='install it with pip install "bitfleet[privacy]"'
        ) from exc
    library: ModuleType = dp_accounting
    return library
