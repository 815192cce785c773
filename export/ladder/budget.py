"""Widths layer by layer within a budget, from what each layer was measured to lose.

    table    loss and accuracy with one layer at one width and all others at the widest: which layer lost the accuracy
    allot    the widths with the least sums of losses whose bytes fit, exactly, by dynamic programming over the bytes
    refine   a sum is only a guess, since losses do not add up: steps between layers are measured and kept if better

Bytes are those of the layers' payloads; what a file has beside them is the same for all widths but for a few bytes.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from wire.errors import ConfigError

__all__ = ["Evaluate", "Lost", "Sizes", "Widths", "allot", "refine", "sensitivity", "within"]

Widths = Mapping[str, int]
Sizes = Mapping[str, Mapping[int, int]]
Evaluate = Callable[[Widths], tuple[float, float]]
"""Loss and accuracy with these widths."""
_Sums = dict[int, list[tuple[float, tuple[int, ...]]]]
"""By cells used: summed losses, and the widths of the layers so far."""
_CELLS = 4096


@dataclass(frozen=True, slots=True)
class Lost:
    """What one layer at one width costs: loss more, and accuracy less, than with every layer at the widest."""

    layer: str
    bits: int
    loss: float
    accuracy: float


def sensitivity(layers: Sequence[str], widths: Sequence[int], evaluate: Evaluate) -> list[Lost]:
    """Returns the table, one measurement a layer and width."""
    widest = max(widths)
    whole = dict.fromkeys(layers, widest)
    loss, accuracy = evaluate(whole)
    found = []
    for layer in layers:
        for bits in sorted(widths, reverse=True):
            seen = (loss, accuracy) if bits == widest else evaluate({**whole, layer: bits})
            found.append(Lost(layer, bits, seen[0] - loss, accuracy - seen[1]))
    return found


def allot(table: Sequence[Lost], sizes: Sizes, most_bytes: int, many: int = 1) -> list[dict[str, int]]:
    """Returns the widths with the least summed losses that fit, at most `many`, the least one first; ConfigError if
    even the narrowest do not.
    """
    least = sum(min(each.values()) for each in sizes.values())
    if least > most_bytes:
        raise ConfigError(f"a budget of {most_bytes} bytes for weights that take {least} at the least width",
                          remedy="give more bytes, or train a smaller net")  # fmt: skip
    cell = max(1, math.ceil(most_bytes / _CELLS))
    room = most_bytes // cell
    best: _Sums = {0: [(0.0, ())]}
    for layer, each in sizes.items():
        choices = [(one.bits, one.loss, math.ceil(each[one.bits] / cell)) for one in table if one.layer == layer]
        best = _cheapest(best, choices, room, many)
    if not best:  # rounding up to cells cost the last bytes
        return [{layer: min(each, key=lambda bits: each[bits]) for layer, each in sizes.items()}]
    found = heapq.nsmallest(many, (one for each in best.values() for one in each))
    return [dict(zip(sizes, chosen, strict=True)) for _, chosen in found]


def refine(
    start: Widths, sizes: Sizes, most_bytes: int, evaluate: Evaluate, most_trials: int = 200
) -> tuple[dict[str, int], float]:
    """Returns better widths that fit, and their measured loss: one layer wider, if need be at another one's cost."""
    now, (loss, _) = dict(start), evaluate(start)
    trials, better = 0, True
    while better and trials < most_trials:
        better = False
        for step in _steps(now, sizes, most_bytes):
            trials += 1
            found, _ = evaluate(step)
            if found < loss:
                now, loss, better = step, found, True
                break
            if trials >= most_trials:
                break
    return now, loss


def within(widths: Widths, sizes: Sizes) -> int:
    """Returns the bytes that layers take at these widths."""
    return sum(sizes[layer][bits] for layer, bits in widths.items())


def _cheapest(best: _Sums, choices: Sequence[tuple[int, float, int]], room: int, many: int) -> _Sums:
    """Returns, by cells used, the least losses once one more layer has a width. What costs more and loses more than
    `many` others goes.
    """
    found: _Sums = {}
    for used, sums in best.items():
        for bits, more, cells in choices:
            if used + cells <= room:
                found.setdefault(used + cells, []).extend((loss + more, (*chosen, bits)) for loss, chosen in sums)
    kept: _Sums = {}
    least: list[float] = []
    for at in sorted(found):
        fine = [one for one in heapq.nsmallest(many, found[at]) if len(least) < many or one[0] < least[-1]]
        if fine:
            kept[at] = fine
            least = heapq.nsmallest(many, [*least, *(loss for loss, _ in fine)])
    return kept


def _steps(now: Mapping[str, int], sizes: Sizes, most_bytes: int) -> Iterator[dict[str, int]]:
    """Yields widths near by that fit, one layer wider and at most one other narrower: the largest first."""
    found = []
    for up, each in sizes.items():
        for bits in (bits for bits in each if bits > now[up]):
            wider = {**now, up: bits}
            if within(wider, sizes) <= most_bytes:
                found.append(wider)
            else:
                found += [one for down in now if down != up for one in _narrower(wider, down, sizes, most_bytes)]
    return iter(sorted(found, key=lambda one: -within(one, sizes)))


def _narrower(widths: Mapping[str, int], layer: str, sizes: Sizes, most_bytes: int) -> list[dict[str, int]]:
    """Returns the widths with this layer as wide as fits, if there is such a width below its own."""
    choices = [{**widths, layer: bits} for bits in sorted(sizes[layer], reverse=True) if bits < widths[layer]]
    return [one for one in choices if within(one, sizes) <= most_bytes][:1]
