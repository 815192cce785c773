"""One file within a budget: the widths that lose least, layer by layer, found by measuring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from export.forms import Form
from export.ladder.budget import Lost, Widths, allot, refine, sensitivity, within
from export.ladder.choice import Chosen, choose_range
from export.ladder.source import Judged, Source, judged
from export.refused import ExportError
from export.sessions import answers, open_session
from export.variant import computed
from wire.errors import ConfigError
from wire.params import Array

__all__ = ["Budget", "Mixed", "mixed"]

_WIDTHS = (8, 6, 5, 4, 3, 2)
_PACKED = {"planes": dict.fromkeys(_WIDTHS[1:], 4), "native": {6: 3, 5: 3, 4: 4, 3: 3, 2: 4}}
"""By packing and width: the width whose nodes for unpacking stand for it, as they are alike."""
_HALVINGS = 7
_TRIES = 4
_STARTS = 24
_CLOSE = 8
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Budget:
    """What a file may take, or lose: a drop of 0.01 is a point of accuracy, against the float model."""

    most_bytes: int | None = None
    most_drop: float | None = None

    def __post_init__(self) -> None:
        if (self.most_bytes is None) == (self.most_drop is None):
            raise ConfigError(f"a budget of {self.most_bytes} bytes and a drop of {self.most_drop}", remedy="give one")

    @property
    def words(self) -> str:
        """Returns the limit in words."""
        if self.most_bytes is not None:
            return f"at most {self.most_bytes} bytes"
        return f"at most {100 * (self.most_drop or 0):g} points lost on the examples that choose"


@dataclass(frozen=True, slots=True)
class Mixed:
    """The forms, and the table of what each layer loses at each width."""

    forms: Mapping[str, Form]
    table: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Trial:
    """Measures widths on the examples that choose, each set of widths once: the rounded weights in PyTorch, of which
    many are tried, and by `proven` the file itself, whose arithmetic may be another. `nodes` is what unpacking a layer
    adds, by layer and width.
    """

    source: Source
    ladder: Mapping[int, Chosen]
    profile: str
    file: Callable[[Mapping[str, Form]], bytes]
    nodes: dict[tuple[str, int], int] = field(default_factory=dict)
    known: dict[tuple[int, ...], tuple[float, float]] = field(default_factory=dict)
    seen: dict[tuple[int, ...], Judged] = field(default_factory=dict)

    @property
    def layers(self) -> list[str]:
        return list(self.ladder[_WIDTHS[0]].forms)

    @property
    def sizes(self) -> dict[str, dict[int, int]]:
        def size(name: str, bits: int) -> int:
            return self.ladder[bits].forms[name].payload_bytes + self.nodes.get((name, bits), 0)

        return {name: {bits: size(name, bits) for bits in _WIDTHS} for name in self.layers}

    @property
    def evens(self) -> list[dict[str, int]]:
        return [dict.fromkeys(self.layers, bits) for bits in _WIDTHS]

    def forms(self, widths: Widths) -> dict[str, Form]:
        return {name: self.ladder[bits].forms[name] for name, bits in widths.items()}

    def __call__(self, widths: Widths) -> tuple[float, float]:
        key = tuple(widths.values())
        if key not in self.known:
            found = self.source.choosing({n: computed(f, self.profile) for n, f in self.forms(widths).items()})
            if found is None:
                raise ConfigError(
                    "widths layer by layer are measured on labelled examples, and there are none, or one output",
                    remedy="name a task whose data this machine has",
                )
            self.known[key] = found.loss, found.accuracy
        return self.known[key]

    def ranked(self, accuracy: float) -> list[dict[str, int]]:
        """Returns what was tried and is that accurate, the least loss first."""
        tried = sorted((loss, widths) for widths, (loss, seen) in self.known.items() if seen >= accuracy)
        return [dict(zip(self.layers, widths, strict=True)) for _, widths in tried]

    def proven(self, widths: Widths) -> Judged:
        key, chooses = tuple(widths.values()), self.source.chooses
        if key not in self.seen and chooses is not None:
            session = open_session(self.file(self.forms(widths)))
            self.seen[key] = judged(answers(session, chooses.x), chooses.y)
        return self.seen[key]


def mixed(  # noqa: PLR0917 - each is another thing
    source: Source,
    weights: Mapping[str, Array],
    chosen: Mapping[int, Chosen],
    profile: str,
    budget: Budget,
    file: Callable[[Mapping[str, Form]], bytes],
    packing: str = "planes",
) -> Mixed:
    """Returns the best forms whose file is small enough, or those of the smallest file that loses little enough."""
    ladder = {bits: chosen.get(bits) or choose_range(source, weights, bits, profile) for bits in _WIDTHS}
    trial = _Trial(source, ladder, profile, file)
    trial(trial.evens[0])  # refuses at once what cannot be measured

    def size(widths: Widths) -> int:
        return len(file(trial.forms(widths)))

    trial.nodes.update(_nodes(trial, size, _PACKED[packing]))
    fits = [] if budget.most_bytes is None else _fits(trial, size, budget.most_bytes)
    table = sensitivity(trial.layers, _WIDTHS, trial)
    best = partial(_best, trial, table)
    if budget.most_bytes is not None:
        widths = _fitting(trial, best, size, budget.most_bytes, fits)
    else:
        widths = _smallest(trial, best, budget.most_drop or 0.0)
    return Mixed(trial.forms(widths), [asdict(one) for one in table])


def _nodes(trial: _Trial, size: Callable[[Widths], int], alike: Mapping[int, int]) -> dict[tuple[str, int], int]:
    """Returns the bytes that unpacking takes in the file by layer, which bytes as they are (8 bits) do not need."""
    sizes, found = trial.sizes, dict[tuple[str, int], int]()
    for packed in sorted(set(alike.values())):
        widths = dict.fromkeys(trial.layers, packed)
        whole = size(widths)
        for name, each in sizes.items():
            nodes = max(0, whole - size({**widths, name: _WIDTHS[0]}) - each[packed] + each[_WIDTHS[0]])
            found |= {(name, bits): nodes for bits, as_this in alike.items() if as_this == packed}
    return found


def _fits(trial: _Trial, size: Callable[[Widths], int], most_bytes: int) -> list[dict[str, int]]:
    """Returns the plain choices whose files fit: even widths, and each layer as small as it gets."""
    plain = [{name: min(each, key=lambda bits: each[bits]) for name, each in trial.sizes.items()}, *trial.evens]
    files = [size(widths) for widths in plain]
    if min(files) > most_bytes:
        raise ExportError(
            f"the smallest file of these layers, at {min(_WIDTHS)} to {max(_WIDTHS)} bits, has {min(files)} bytes,"
            f" allowed are {most_bytes}",
            remedy="allow more, or train a smaller net",
        )
    return [widths for widths, taken in zip(plain, files, strict=True) if taken <= most_bytes]


def _best(trial: _Trial, table: Sequence[Lost], room: int) -> dict[str, int]:
    """Returns the best widths found from the best of the table and from every even width that fits."""
    sizes = trial.sizes
    starts = [*allot(table, sizes, room, _STARTS), *(even for even in trial.evens if within(even, sizes) <= room)]
    start = min(starts, key=lambda widths: trial(widths)[0])
    return refine(start, sizes, room, trial)[0]


def _fitting(
    trial: _Trial,
    best: Callable[[int], dict[str, int]],
    size: Callable[[Widths], int],
    most_bytes: int,
    fits: Sequence[dict[str, int]],
) -> dict[str, int]:
    """Returns the widths of the least loss whose file fits and is no less accurate than that of any plain choice. What
    a file has beside its layers differs a little by width, so what is over is taken off the room for layers.
    """
    sizes, found = trial.sizes, list(fits)
    least = sum(min(each.values()) for each in sizes.values())
    room = most_bytes - min(size(even) - within(even, sizes) for even in fits)
    for _ in range(_TRIES):
        if room < least:
            break
        widths = best(room)
        over = size(widths) - most_bytes
        if over <= 0:
            found.append(widths)
            break
        room = min(room, within(widths, sizes)) - over
    accurate = max(trial.proven(plain).accuracy for plain in fits)
    small = (widths for widths in trial.ranked(accurate - _ROUNDING) if within(widths, sizes) <= room)
    close = islice((widths for widths in small if size(widths) <= most_bytes), _CLOSE)
    fine = [widths for widths in (*found, *close) if trial.proven(widths).accuracy >= accurate - _ROUNDING]
    return min(fine, key=lambda widths: trial.proven(widths).loss)


def _smallest(trial: _Trial, best: Callable[[int], dict[str, int]], drop: float) -> dict[str, int]:
    """Returns the smallest widths found whose file loses no more than `drop`: the smallest even ones, then by halving
    the room between them and what lost too much.
    """
    whole = trial.source.choosing({})
    wanted, sizes = (whole.accuracy if whole else 0.0) - drop - _ROUNDING, trial.sizes

    def good(widths: dict[str, int]) -> bool:
        return trial(widths)[1] >= wanted and trial.proven(widths).accuracy >= wanted

    fine = [even for even in trial.evens if good(even)]
    if not fine:
        lost = wanted + drop + _ROUNDING - max(trial.proven(even).accuracy for even in trial.evens)
        raise ExportError(
            f"every even width loses {100 * lost:.2g} points or more on the {len(trial.source.chooses or ())} examples"
            f" that choose, allowed are {100 * drop:g}",
            remedy="allow more, or choose on more examples (--calibration)",
        )
    kept = min(fine, key=lambda even: within(even, sizes))
    high, low = within(kept, sizes), sum(min(each.values()) for each in sizes.values())
    low = max([low, *(taken for even in trial.evens if (taken := within(even, sizes)) < high)])
    for _ in range(_HALVINGS):
        middle = (low + high) // 2
        if middle <= low:
            break
        found = best(middle)
        if good(found):
            kept, high = found, within(found, sizes)
        else:
            low = middle
    return kept
