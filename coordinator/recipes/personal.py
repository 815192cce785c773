"""Personal models in a recipe (QuPeD): the settings of all devices, and how simulation and demo mix them.

    [personal]
    distil = 0.25
    mix = [{ centres = 0 }, { centres = 4 }, { centres = 2, arch = "mlp-16" }]

A real device has its own settings in its own configuration; those of the recipe hold where it has none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from models.archs import spec_of
from models.personal.settings import Personal, quantised_names
from wire.errors import ConfigError
from wire.settings import settings_from
from wire.spec import ModelSpec

__all__ = ["check_personal", "own_personal", "planned_personal"]


def check_personal(table: Mapping[str, Any] | None, spec: ModelSpec) -> None:
    """Raises ConfigError for a section [personal] that no device could follow with the net of `spec`."""
    mix = (table or {}).get("mix", [])
    if not isinstance(mix, list | tuple) or not all(isinstance(own, Mapping) for own in mix):
        raise ConfigError(f"personal.mix = {mix!r}", remedy="write a list of tables, one for each kind of device")
    for own in (*mix, {}) if table is not None else ():
        _check_centres(settings_from(Personal, {**_common(table or {}), **own}, "personal"), spec)


def planned_personal(table: Mapping[str, Any] | None) -> dict[str, Any]:
    """Returns what a plan says of personal models: nothing, or every setting."""
    return {} if table is None else asdict(settings_from(Personal, _common(table), "personal"))


def own_personal(table: Mapping[str, Any] | None, at: int) -> Mapping[str, Any]:
    """Returns the own settings that simulation and demo give to the device number `at`."""
    mix = (table or {}).get("mix", ())
    return mix[at % len(mix)] if mix else {}


def _check_centres(personal: Personal, spec: ModelSpec) -> None:
    """Raises ConfigError now for what would end a run only when its warm start does."""
    own = spec_of(personal.arch, spec.input, spec.outputs, spec.seed) if personal.arch else spec
    quantised_names(personal, own)


def _common(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name != "mix"}
