"""The files that are to be made for a profile: their names, and how the forms of each are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx

from export.forms import Form, Table
from export.grids import PROFILES, place
from export.int8 import Activations
from export.ladder.choice import Chosen, activations_of, choose_range
from export.ladder.mixed import Budget, mixed
from export.ladder.nested import nested_forms
from export.ladder.source import Source
from export.refused import ExportError
from export.store.elements import PACKINGS
from export.variant import write
from wire.errors import ConfigError
from wire.params import Array
from wire.settings import check_range

__all__ = ["Bench", "Draft", "Wish", "drafts", "written"]

_MOST_CENTRES = 256
_MIXED = "mixed"  # no longer than what even widths say, or they would not fit into their own size


@dataclass(frozen=True, slots=True)
class Wish:
    """What to make. A budget asks for one more file a profile, with the widths chosen layer by layer. The packing
    `native` stores 4 and 2 bits in ONNX's own types, which only newer runtimes read.
    """

    bits: tuple[int, ...] = (8, 6, 5, 4, 3, 2)
    profiles: tuple[str, ...] = ("int8", "float")
    nested: bool = False
    budget: Budget | None = None
    rounds: int = 9
    packing: str = "planes"

    def __post_init__(self) -> None:
        for bits in self.bits:
            check_range("--bits", bits, 2, 8)
        if len(set(self.bits)) < len(self.bits) or len(set(self.profiles)) < len(self.profiles):
            raise ConfigError(f"widths {self.bits}, profiles {self.profiles}", remedy="name each once")
        if not self.profiles or not set(self.profiles) <= set(PROFILES):
            raise ConfigError(f"profiles {self.profiles}", remedy=f"choose of {PROFILES}")
        if self.packing not in PACKINGS:
            raise ConfigError(f"packing {self.packing!r}", remedy=f"choose of {PACKINGS}")
        if self.nested and self.packing != PACKINGS[0]:
            raise ConfigError(
                f"nested files with the packing {self.packing!r}",
                remedy="ask for one of them: every width of a bundle is cut from the same bit planes",
            )


@dataclass(frozen=True, slots=True)
class Bench:
    """What all files of one profile share; `rule` finds the ranges of activations, for the profile int8."""

    source: Source
    model: onnx.ModelProto
    weights: Mapping[str, Array]
    wish: Wish
    profile: str = "float"
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """A file to be made: its name and forms, which ranges they come from (as the file says), and in what limit."""

    name: str
    forms: Mapping[str, Form]
    ranges: str
    nested: bool = False
    limit: str = ""
    most_bytes: int | None = None
    table: tuple[Mapping[str, Any], ...] = ()


def drafts(bench: Bench) -> dict[str, Callable[[], Draft]]:
    """Returns by name what makes each draft; one that cannot be made raises, and the others still can."""
    chosen: dict[int, Chosen] = {}
    even = _nested if bench.wish.nested else partial(_even, chosen=chosen)
    names = {f"{bench.profile}-{bits}": bits for bits in bench.wish.bits}
    made: dict[str, Callable[[], Draft]] = {name: partial(even, bench, name, bits) for name, bits in names.items()}
    if bench.source.tables:
        made[f"{bench.profile}-centres"] = partial(_centres, bench, f"{bench.profile}-centres")
    if bench.wish.budget is not None:
        name = f"{bench.profile}-mixed"
        made[name] = partial(_mixed, bench, name, bench.wish.budget, chosen=chosen)
    return made


def written(bench: Bench, draft: Draft) -> tuple[bytes, Activations | None]:
    """Returns a draft's file, and the ranges of activations that were measured for it."""
    source, activations = bench.source, None
    if bench.profile == "int8":
        activations = activations_of(source, bench.model, draft.forms, bench.rule)
    told = {"run": source.run, "model": source.model, "labels": list(source.labels),
            "preprocessing": source.preprocessing, "ranges": draft.ranges}  # fmt: skip
    return write(bench.model, draft.forms, bench.profile, activations, told, packing=bench.wish.packing), activations


def _even(bench: Bench, name: str, bits: int, chosen: dict[int, Chosen]) -> Draft:
    best = chosen[bits] = choose_range(bench.source, bench.weights, bits, bench.profile)
    return Draft(name, best.forms, f"{best.range} ({best.by})")


def _nested(bench: Bench, name: str, bits: int) -> Draft:
    return Draft(name, nested_forms(bench.weights, bits, bench.profile), "nested", nested=True)


def _centres(bench: Bench, name: str) -> Draft:
    odd = sorted(set(bench.source.tables) - set(bench.weights))
    if odd:
        raise ExportError(f"centres for {odd[:5]}, which are no weights", remedy=f"name some of {list(bench.weights)}")
    forms = {weight: _own(values, bench.source.tables.get(weight), bench.profile)
             for weight, values in bench.weights.items()}  # fmt: skip
    return Draft(name, forms, "learned centres")


def _own(values: Array, table: Array | None, profile: str) -> Form:
    """Returns the form of a weight with learned centres; one without stays at 8 bits."""
    if table is None:
        return place(values, 8, "minmax", profile)
    if table.ndim != 1 or not 1 <= table.size <= _MOST_CENTRES:
        raise ExportError(f"a table of shape {table.shape}", remedy=f"give 1 to {_MOST_CENTRES} centres")
    order = np.argsort(table, kind="stable")
    middles = (table[order][1:].astype(np.float64) + table[order][:-1]) / 2
    codes = order.astype(np.uint8)[np.searchsorted(middles, values)]
    return Table(max(1, int(table.size - 1).bit_length()), codes, table)


def _mixed(bench: Bench, name: str, budget: Budget, chosen: dict[int, Chosen]) -> Draft:
    def file(forms: Mapping[str, Form]) -> bytes:
        return written(bench, Draft(name, forms, _MIXED))[0]

    found = mixed(bench.source, bench.weights, chosen, bench.profile, budget, file, bench.wish.packing)
    table = tuple({"profile": bench.profile, **row} for row in found.table)
    return Draft(name, found.forms, _MIXED, limit=budget.words, most_bytes=budget.most_bytes, table=table)
