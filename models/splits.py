"""How one dataset is shared out over devices. A rule is text:

    iid             parts of equal size, shuffled
    dirichlet:A     of every class, each part gets a share drawn from Dirichlet(A): the smaller A, the more uneven
    classes:K       every part holds exactly K classes, every class is held about equally often
    subject         part i is the i-th subject in order of id; subjects beyond the number of parts are left out

All rules but `subject` give every example to exactly one part, and no part is ever empty. Dirichlet shares are
normalised gamma draws (Marsaglia and Tsang 2000, over Box-Muller normals), computed with Python floats from raw words
of `Bits`: no draw depends on NumPy's Generator. Logarithm and cosine are the platform's, so two platforms could place
a cut one example apart; a split that several machines share is therefore computed on one of them, or checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wire.bits import Bits
from wire.errors import ConfigError

__all__ = ["Share", "indices_of", "parts_of", "split"]

Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Share:
    """One part, `at`, of a dataset that `rule` shares out over `parts`.

    With `examples` only the first that many of an order drawn from the seed are shared out; 0 means all.
    """

    rule: str
    parts: int
    at: int
    seed: int
    examples: int = 0


def indices_of(share: Share, labels: Index, subjects: Index | None) -> Index:
    """Returns the examples of one part, in ascending order."""
    if not 0 <= share.at < share.parts:
        raise ConfigError(f"part {share.at} of {share.parts}", remedy="parts are numbered from 0")
    return parts_of(share, labels, subjects)[share.at]


def parts_of(share: Share, labels: Index, subjects: Index | None) -> list[Index]:
    """Returns the examples of every part, each in ascending order; `share.at` does not matter."""
    if not share.examples:
        return split(labels, subjects, share.rule, share.parts, share.seed)
    if not 0 < share.examples <= len(labels):
        raise ConfigError(f"{share.examples} of {len(labels)} examples", remedy=f"use at most {len(labels)}, 0 for all")
    order = Bits.of(share.seed, "examples").permutation(len(labels))
    kept = np.sort(order[: share.examples])
    own = None if subjects is None else subjects[kept]
    return [kept[part] for part in split(labels[kept], own, share.rule, share.parts, share.seed)]


def split(labels: Index, subjects: Index | None, rule: str, parts: int, seed: int) -> list[Index]:
    """Returns the examples of every part, each in ascending order."""
    name = rule.partition(":")[0]
    if not 1 <= parts <= len(labels):
        raise ConfigError(f"{parts} parts of {len(labels)} examples", remedy="use 1 to as many parts as examples")
    bits = Bits.of(seed, "split", rule, parts)
    if rule == "subject":
        return _by_subject(subjects, parts)
    if rule == "iid":
        return [np.sort(part) for part in np.array_split(bits.permutation(len(labels)), parts)]
    if name == "dirichlet":
        return _dirichlet(labels, _number(rule, float), parts, bits)
    if name == "classes":
        return _classes(labels, _number(rule, int), parts, bits)
    raise ConfigError(f"unknown split {rule!r}", remedy="use iid, dirichlet:ALPHA, classes:K or subject")


def _number(rule: str, kind: Callable[[str], float]) -> float:
    text = rule.partition(":")[2]
    try:
        value = kind(text)
    except ValueError as exc:
        raise ConfigError(f"split {rule!r}: {text!r} is not a number", remedy="write dirichlet:0.5, classes:2") from exc
    if not 0 < value < math.inf:
        raise ConfigError(f"split {rule!r}: {text} must be above 0 and finite", remedy="write dirichlet:0.5, classes:2")
    return value


def _by_subject(subjects: Index | None, parts: int) -> list[Index]:
    if subjects is None:
        raise ConfigError("split 'subject' of data without subjects", remedy="use another split, or data with subjects")
    ids = np.unique(subjects)
    if parts > len(ids):
        raise ConfigError(f"{parts} parts of {len(ids)} subjects", remedy=f"use at most {len(ids)} devices")
    return [np.flatnonzero(subjects == one) for one in ids[:parts]]


def _dirichlet(labels: Index, alpha: float, parts: int, bits: Bits) -> list[Index]:
    piles: list[list[Index]] = [[] for _ in range(parts)]
    for label in np.unique(labels):
        members = _shuffled(labels, label, bits)
        ends = np.cumsum(_shares(alpha, parts, bits)) * len(members)
        cuts = np.minimum(np.floor(ends + 0.5).astype(np.int64), len(members))
        for pile, chosen in zip(piles, np.split(members, cuts[:-1]), strict=True):
            pile.append(chosen)
    return _filled([np.sort(np.concatenate(pile)) for pile in piles])


def _filled(parts: list[Index]) -> list[Index]:
    """Gives every empty part, in order, the last example of the largest part (the first of equals)."""
    for at, part in enumerate(parts):
        if not len(part):
            giver = max(range(len(parts)), key=lambda one: len(parts[one]))
            parts[at], parts[giver] = parts[giver][-1:], parts[giver][:-1]
    return parts


def _classes(labels: Index, count: float, parts: int, bits: Bits) -> list[Index]:
    """Every part takes the `count` classes with fewest holders so far, ties in an order drawn anew for each part."""
    classes, each = np.unique(labels), int(count)
    if each > len(classes) or parts * each < len(classes):
        raise ConfigError(
            f"{parts} parts with {each} of {len(classes)} classes each",
            remedy="every class needs a part and every part its classes: change the number of parts or of classes",
        )
    holders: list[list[int]] = [[] for _ in classes]
    for part in range(parts):
        order = bits.permutation(len(classes)).tolist()
        for at in sorted(order, key=lambda one: len(holders[one]))[:each]:
            holders[at].append(part)
    return _dealt(labels, classes, holders, parts, bits)


def _dealt(labels: Index, classes: Index, holders: list[list[int]], parts: int, bits: Bits) -> list[Index]:
    piles: list[list[Index]] = [[] for _ in range(parts)]
    for label, owners in zip(classes, holders, strict=True):
        members = _shuffled(labels, label, bits)
        if len(members) < len(owners):
            raise ConfigError(
                f"class {label} has {len(members)} examples for {len(owners)} parts",
                remedy="use fewer parts or classes",
            )
        for owner, chosen in zip(owners, np.array_split(members, len(owners)), strict=True):
            piles[owner].append(chosen)
    return [np.sort(np.concatenate(pile)) for pile in piles]


def _shuffled(labels: Index, label: np.int64, bits: Bits) -> Index:
    members = np.flatnonzero(labels == label)
    return members[bits.permutation(len(members))]


def _shares(alpha: float, parts: int, bits: Bits) -> npt.NDArray[np.float64]:
    """Returns one Dirichlet draw. Over logarithms, so that a small alpha cannot turn every gamma into 0."""
    logs = [_log_gamma_draw(alpha, bits) for _ in range(parts)]
    top = max(logs)
    weights = [math.exp(log - top) for log in logs]
    total = math.fsum(weights)
    return np.array([weight / total for weight in weights])


def _log_gamma_draw(alpha: float, bits: Bits) -> float:
    """Returns log G, G ~ Gamma(alpha, 1). Below 1: Gamma(a) = Gamma(a + 1) * U^(1/a)."""
    if alpha < 1.0:
        return _log_gamma_draw(alpha + 1.0, bits) + math.log(_unit(bits)) / alpha
    d = alpha - 1.0 / 3.0
    c = 1.0 / math.sqrt(9.0 * d)
    while True:
        x = math.sqrt(-2.0 * math.log(_unit(bits))) * math.cos(2.0 * math.pi * _unit(bits))
        v = (1.0 + c * x) ** 3
        if v > 0.0 and math.log(_unit(bits)) < 0.5 * x * x + d - d * v + d * math.log(v):
            return math.log(d) + math.log(v)


def _unit(bits: Bits) -> float:
    """Returns the top 53 bits of a word as a number in (0, 1): the middle of its step, so never 0."""
    return (int(bits.words(1)[0]) >> 11) * 2.0**-53 + 2.0**-54
