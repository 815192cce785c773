"""Which methods cannot be combined, and why. Everything else may be."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from models.archs import tensors_of
from models.plugins import nearest
from models.weights.settings import check_penalty, check_transforms, shaped_names
from wire.errors import ConfigError

if TYPE_CHECKING:
    from coordinator.recipe import Recipe
    from coordinator.recipes.sections import Train
    from wire.spec import ModelSpec

__all__ = ["check_combination", "check_patterns", "check_skips"]

_THIN = 0.5  # up to this share of top-k what one level leaves out was measured to stay bounded


def check_combination(recipe: Recipe) -> None:
    """Raises ConfigError naming the two settings that do not go together, and why."""
    for holds, what, why in _RULES:
        if holds(recipe):
            raise ConfigError(what, remedy=why)


def check_patterns(place: str, patterns: Iterable[str], names: Sequence[str]) -> None:
    """Raises ConfigError for a pattern that names none of the tensors that travel; "first" and "last" always do."""
    for pattern in patterns:
        if pattern not in ("first", "last") and not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"{place}: {pattern!r} fits no trainable tensor", remedy=nearest(pattern, names))


def check_skips(train: Train, spec: ModelSpec) -> None:
    """Raises ConfigError where `skip` names no tensor of the net, or leaves a method none to work on."""
    shapes = {tensor.name: tensor.shape for tensor in tensors_of(spec.arch, spec.input, spec.outputs)}
    for settings in (*check_transforms(train.transforms), check_penalty(train.penalty)):
        skip: Sequence[str] = getattr(settings, "skip", ())
        if skip and not shaped_names(shapes, skip):
            what = f"{type(settings).__name__.lower()}: skip = {list(skip)} leaves no tensor of {spec.arch!r}"
            raise ConfigError(what, remedy="skip less, or take a net of more layers")


def _has(stages: tuple[Mapping[str, Any], ...], name: str) -> bool:
    return any(stage.get("stage") == name for stage in stages)


def _adapts(recipe: Recipe) -> bool:
    return recipe.schedule.rule != "fixed"


def _weights(recipe: Recipe) -> bool:
    return recipe.uplink.kind == "weights"


def _private(recipe: Recipe) -> bool:
    return recipe.privacy.clip > 0


def _late(recipe: Recipe) -> bool:
    return recipe.devices.late == "fold"


def _thins(stages: tuple[Mapping[str, Any], ...]) -> bool:
    return any(stage.get("stage") == "topk" and stage["share"] <= _THIN for stage in stages)


def _amplifies(stages: tuple[Mapping[str, Any], ...], fewest: int = 0, whole: bool = False) -> bool:
    """Tells whether what stages leave out of an array can be more than the array: then what is left grows for ever.

    Levels on a scale as long as the whole array are mostly noise, and so is one level where most values are still
    there, as all are in `whole` tensors. `fewest` are the levels that a schedule may come down to.
    """
    for stage in stages:
        if stage.get("stage") == "levels":
            one = (fewest or stage.get("levels")) == 1
            return stage.get("norm") == "l2" or (one and (whole or not _thins(stages)))
    return False


def _up_amplifies(recipe: Recipe) -> bool:
    up = recipe.uplink
    return _amplifies(up.stages, recipe.schedule.least if _adapts(recipe) else 0, bool(up.whole))


_RULES: tuple[tuple[Callable[[Recipe], bool], str, str], ...] = (
    (
        lambda r: _late(r) and _weights(r),
        'devices.late = "fold" with uplink.kind = "weights"',
        "late weights would undo newer rounds: send deltas, or refuse late updates",
    ),
    (
        lambda r: r.uplink.feedback and _late(r),
        'uplink.feedback with devices.late = "fold"',
        "a device must know what became of its last update before it adds what was left out: refuse late updates",
    ),
    (
        lambda r: r.uplink.feedback and _weights(r),
        'uplink.feedback with uplink.kind = "weights"',
        "weights that were not sent are in the next weights already: send deltas, or drop feedback",
    ),
    (
        lambda r: r.uplink.feedback and not r.uplink.stages,
        "uplink.feedback without stages",
        "nothing is left out of an update without stages: add some, or drop feedback",
    ),
    (
        lambda r: r.uplink.feedback and any(stage.get("by") == "weights" for stage in r.uplink.stages),
        'uplink.feedback with stages by = "weights"',
        'where the weights are small nothing would ever be sent, and what was left out pile up: write by = "values"',
    ),
    (
        lambda r: r.uplink.feedback and _up_amplifies(r),
        "uplink.feedback with levels of such noise",
        'what is left out would grow from round to round: choose norm = "max" and 2 levels or more (with a schedule,'
        " schedule.least = 2 or more), or drop feedback",
    ),
    (
        lambda r: _amplifies(r.downlink.stages),
        "downlink.stages with levels of such noise",
        'the way down has feedback, and what is left out would grow: choose norm = "max" and 2 levels or more',
    ),
    (
        lambda r: bool(r.uplink.whole) and r.uplink.scope == "update",
        'uplink.whole with uplink.scope = "update"',
        'tensors stand apart only with scope = "tensor": choose it, or leave whole out',
    ),
    (
        lambda r: any(stage.get("by") == "weights" for stage in r.downlink.stages),
        'downlink.stages with by = "weights"',
        'a difference on its way down is ranked by its own values: write by = "values"',
    ),
    (
        lambda r: _weights(r) and _has(r.uplink.stages, "topk") and bool(r.downlink.stages),
        'uplink.kind = "weights" with a top-k and downlink.stages',
        "a weight that nobody sends becomes 0 only if devices hold the server's model, and with downlink.stages they do"
        ' not: send the largest changes (kind = "delta" with by = "values"), or drop downlink.stages',
    ),
    (
        lambda r: _weights(r) and _has(r.uplink.stages, "signs"),
        'uplink.kind = "weights" with a stage "signs"',
        "of the whole model one number would be left: send deltas",
    ),
    (
        lambda r: r.uplink.feedback and _private(r),
        "uplink.feedback with privacy",
        "what clipping bounds must not come back through the residual: drop one of the two",
    ),
    (
        lambda r: _private(r) and _weights(r),
        'privacy with uplink.kind = "weights"',
        "the length of an update bounds what a device gives away, that of its weights does not: send deltas",
    ),
    (
        lambda r: _private(r) and _late(r),
        'privacy with devices.late = "fold"',
        "the accountant counts a device once a round: refuse late updates",
    ),
    (
        lambda r: _private(r) and _adapts(r),
        "privacy with a schedule that follows the loss",
        "the levels in every plan would tell of the devices' losses without noise: use a fixed schedule",
    ),
    (
        lambda r: r.privacy.mechanism == "tree" and r.server.optimiser == "adam",
        'privacy.mechanism = "tree" with server.optimiser = "adam"',
        "the tree's noise cancels only in a linear server step: choose sgd or momentum",
    ),
    (
        lambda r: _adapts(r) and not _has(r.uplink.stages, "levels"),
        'schedule without a stage "levels" in uplink.stages',
        'the schedule sets its levels: add { stage = "levels", levels = 1 } to uplink.stages',
    ),
    (
        lambda r: r.task == "echo" and bool(r.train.transforms or r.train.penalty or r.personal is not None),
        'task = "echo" with train.transforms, train.penalty or personal models',
        "it adds noise to the model and trains nothing: leave them out, or choose another task",
    ),
    (
        lambda r: bool(r.personal is not None and (r.train.transforms or r.train.penalty)),
        "personal models with train.transforms or train.penalty",
        "personal models have a quantiser of their own, and the global model stays in full precision: drop one of them",
    ),
    (
        lambda r: r.personal is not None and bool(r.trunk),
        "personal models with a trunk",
        "a personal model starts from the seed or from the global one: drop the trunk",
    ),
    (
        lambda r: bool(r.trunk) and not r.freeze,
        "a trunk without freeze",
        "the trunk holds the frozen tensors: name them in freeze",
    ),
)
