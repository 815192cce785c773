"""The settings of every transform and penalty, read from tables and checked; nothing here loads torch.

A table names its kind: `{ transform = "mqat", bits = [3, 4, 8, 32] }`, `{ penalty = "kure", strength = 1.0 }`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias, TypeVar

from models.plugins import nearest
from wire.errors import ConfigError
from wire.settings import check_range, settings_from

__all__ = [
    "FLOAT_BITS",
    "PENALTIES",
    "SETTINGS",
    "Activations",
    "Apqn",
    "Kure",
    "Mqat",
    "Qat",
    "Swat",
    "TransformSettings",
    "check_bits",
    "check_penalty",
    "check_transforms",
    "kept_names",
    "shaped_names",
]

FLOAT_BITS = 32  # this width stands for: left as it is
_MOST_BITS = 16
_GRIDS = ("tensor", "channel")
_RANGES = ("minmax", "lsq")
_DRAWS = ("step", "layer", "round")


@dataclass(frozen=True, slots=True)
class Qat:
    """Weights on the grid of one bit-width. The default 4 is the lowest that a min-max step serves well."""

    bits: int = 4
    grid: str = "tensor"
    range: str = "minmax"
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_bits(self.bits)
        _check_grid(self.grid, self.range)


@dataclass(frozen=True, slots=True)
class Apqn:
    """Noise as wide as one step of the lowest bit-width that the model must survive; several: one drawn a step."""

    bits: tuple[int, ...] = (4,)
    grid: str = "tensor"
    range: str = "minmax"
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_widths("apqn", self.bits)
        _check_grid(self.grid, self.range)


@dataclass(frozen=True, slots=True)
class Mqat:
    """Weights on a grid whose bit-width is drawn from `bits`: once a `step`, for each `layer`, or once a `round`."""

    bits: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    draw: str = "step"
    grid: str = "tensor"
    range: str = "minmax"
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_widths("mqat", self.bits)
        _check_choice("draw", self.draw, _DRAWS)
        _check_grid(self.grid, self.range)


@dataclass(frozen=True, slots=True)
class Swat:
    """All but the largest `1 - sparsity` of each layer's weights and stored inputs dropped, ranked every `period`."""

    sparsity: float
    period: int = 10
    skip: tuple[str, ...] = ("first", "last")

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ConfigError(f"sparsity = {self.sparsity}", remedy="choose 0 or more and less than 1")
        check_range("period", self.period, 1, 1_000_000)


@dataclass(frozen=True, slots=True)
class Activations:
    """Activations on the grid of one bit-width, its range a running mean that keeps `keep` of its old value."""

    bits: int = 8
    keep: float = 0.9

    def __post_init__(self) -> None:
        check_bits(self.bits)
        check_range("keep", self.keep, 0, 1)


@dataclass(frozen=True, slots=True)
class Kure:
    """The squared distance of every tensor's kurtosis from `target`; 1.8 is that of a uniform distribution."""

    strength: float = 1.0
    target: float = 1.8
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_range("strength", self.strength, 0, 1e6)
        check_range("target", self.target, 1, 1e3)


TransformSettings: TypeAlias = Qat | Apqn | Mqat | Swat | Activations
SETTINGS: dict[str, type[TransformSettings]] = {
    "activations": Activations,
    "apqn": Apqn,
    "mqat": Mqat,
    "qat": Qat,
    "swat": Swat,
}
PENALTIES: dict[str, type[Kure]] = {"kure": Kure}
_QUANTISERS = ("apqn", "mqat", "qat")

T = TypeVar("T")


def check_bits(bits: int, name: str = "bits") -> None:
    """Raises ConfigError for a width that no symmetric grid has: 2 to 16 are grids, 32 is float."""
    if type(bits) is not int or not (2 <= bits <= _MOST_BITS or bits == FLOAT_BITS):
        raise ConfigError(
            f"{name} = {bits!r}", remedy=f"choose 2 to {_MOST_BITS}, or {FLOAT_BITS} for none; 1 bit has no such grid"
        )


def check_transforms(tables: Sequence[Mapping[str, Any]]) -> tuple[TransformSettings, ...]:
    """Returns the settings in these tables, in order; raises ConfigError for what is unknown or has no meaning."""
    names = [_kind_of(table, "transform", SETTINGS) for table in tables]
    _check_together(names)
    return tuple(_read(SETTINGS[name], table, "transform", name) for name, table in zip(names, tables, strict=True))


def check_penalty(table: Mapping[str, Any]) -> Kure | None:
    """Returns the settings of a penalty; None for an empty table or a strength of 0, which both mean no penalty."""
    if not table:
        return None
    name = _kind_of(table, "penalty", PENALTIES)
    settings = _read(PENALTIES[name], table, "penalty", name)
    return settings if settings.strength else None


def shaped_names(shapes: Mapping[str, tuple[int, ...]], skip: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the tensors of two or more dimensions, in the net's order, less what `skip` names."""
    return kept_names([name for name, shape in shapes.items() if len(shape) >= 2], skip)


def kept_names(names: Sequence[str], skip: Sequence[str]) -> tuple[str, ...]:
    """Returns `names` less the "first", the "last" and those that match a pattern as in fnmatch."""
    dropped = {name for pattern in skip for name in _matching(names, pattern)}
    return tuple(name for name in names if name not in dropped)


def _matching(names: Sequence[str], pattern: str) -> Sequence[str]:
    ends = {"first": names[:1], "last": names[-1:]}
    found = ends[pattern] if pattern in ends else [name for name in names if fnmatchcase(name, pattern)]
    if not found:
        raise ConfigError(
            f"skip: {pattern!r} is none of the tensors {', '.join(names)[:200]}",
            remedy='use "first", "last", a name or a pattern such as conv*',
        )
    return found


def _kind_of(table: Mapping[str, Any], key: str, known: Mapping[str, object]) -> str:
    name = table.get(key)
    if not isinstance(name, str):
        raise ConfigError(f"{key} = {name!r} in {dict(table)!r} is not a name", remedy=nearest("", known))
    if name not in known:
        raise ConfigError(f"unknown {key} {name!r}", remedy=nearest(name, known))
    return name


def _read(cls: type[T], table: Mapping[str, Any], key: str, name: str) -> T:
    place = f"{key} {name!r}"
    try:
        return settings_from(cls, dict(_options(table, key, name)), place)
    except ConfigError as exc:
        if exc.message.startswith(place):
            raise
        raise ConfigError(f"{place}: {exc.message}", code=exc.code, remedy=exc.remedy) from exc


def _options(table: Mapping[str, Any], key: str, name: str) -> Iterator[tuple[str, Any]]:
    """Yields the options as TOML has them: a tuple is a list, and one width stands for a list of one."""
    for option, value in table.items():
        if option != key:
            alone = option == "bits" and name in ("apqn", "mqat") and type(value) is int
            yield option, [value] if alone else list(value) if isinstance(value, tuple) else value


def _check_together(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"transform {name!r} stands there twice", remedy="use it once")
    quantisers = [name for name in names if name in _QUANTISERS]
    if len(quantisers) > 1:
        raise ConfigError(
            f"transforms {' and '.join(quantisers)} both decide the grid of the same weights", remedy="use one of them"
        )
    if "swat" in names and "apqn" in names:
        raise ConfigError(
            "transforms swat and apqn undo each other: noise fills the weights that swat has set to 0",
            remedy="use qat or mqat with swat: their grids keep 0 where it is",
        )
    if "swat" in names and quantisers and names.index("swat") > names.index(quantisers[0]):
        raise ConfigError(
            f"transform swat stands after {quantisers[0]}: it would rank weights that a grid has made equal",
            remedy="put swat first",
        )


def _check_widths(name: str, bits: Sequence[int]) -> None:
    for one in bits:
        check_bits(one)
    if not bits or len(set(bits)) < len(bits):
        raise ConfigError(f"bits = {list(bits)} of {name}", remedy="give at least one bit-width, each once")


def _check_grid(grid: str, span: str) -> None:
    _check_choice("grid", grid, _GRIDS)
    _check_choice("range", span, _RANGES)


def _check_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name} = {value!r}", remedy=f"choose one of {', '.join(known)}")
