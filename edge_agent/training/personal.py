"""A model of the device's own beside the global one, tied to it by what they answer (QuPeD; citation in centres.py).

On every batch the personal model x with its centres c learns from the labels and the global copy w (student.py), then
w from x; only w travels. With L the cross-entropy and Q the quantiser, taken at the new x and c:

    w <- w - rate grad_w [ L(w)  +  lambda_p T^2 sum over z in {x, Q_c(x)} of KL(softmax(w / T) || softmax(z / T)) ]

where L(w) is there with global_loss = "ce+kd" (mutual learning) and not with "kd" (the paper's formula). In full
precision there is no Q. lambda is `slope` times the personal rounds after the warm start, this one included.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from edge_agent.training.batches import batches
from edge_agent.training.fit import Fit
from models.archs import find_arch, spec_of
from models.data import Dataset
from models.init import initial
from models.measure import measure
from models.nets import build, dump, load
from models.personal.centres import initial_centres, packed_bytes
from models.personal.memory import CENTRES, PERSONAL
from models.personal.settings import Personal, personal_from, quantised_names
from models.personal.student import (
    Descent,
    Lesson,
    Phase,
    Student,
    answers,
    deployed,
    distance,
    distillation,
    harden,
    learn,
)
from wire.bits import Bits
from wire.errors import ConfigError, Declined, StateError
from wire.messages.train import TrainSettings
from wire.params import Array, Params
from wire.spec import ModelSpec

__all__ = ["fit_personal", "held_out"]

_MEASURED_EXAMPLES = 256
_ROUNDS = "rounds"


@dataclass(frozen=True, slots=True)
class _Role:
    """One of the device's own models: under which names it is remembered, and whether the global copy teaches it."""

    name: str
    weights: str
    centres: str
    taught: bool


@dataclass(frozen=True, slots=True)
class _Round:
    """What holds for every model of the device in this round."""

    base: Params
    spec: ModelSpec
    settings: TrainSettings
    personal: Personal
    phase: Phase
    key: tuple[object, ...]


_PERSONAL = _Role("personal", PERSONAL, CENTRES, taught=True)
_LOCAL = _Role("local", "local/", "local_centres/", taught=False)


def fit_personal(
    base: Params,
    spec: ModelSpec,
    data: Dataset,
    settings: TrainSettings,
    key: tuple[object, ...],
    *,
    memory: Mapping[str, Array],
) -> Fit:
    """Returns the global copy after one round beside the device's own models, which go into the memory.

    `key` is (seed, round, device): the held-out examples are named without the round, so they stay the same ones.
    """
    _check_alone(settings)
    personal = personal_from(settings.personal)
    rounds = _rounds(memory)
    now = _Round(base, spec, settings, personal, _phase(personal, rounds), key)
    train, held = held_out(data, personal.held_out, key)
    net = build(spec)
    load(net, base)
    roles = [_PERSONAL, _LOCAL] if personal.local_only else [_PERSONAL]
    students = {role: _student(role, now, memory) for role in roles}
    sample = train.spread(_MEASURED_EXAMPLES)
    metrics = {"loss_before": measure(net, sample)["loss"], **_accuracy("global", net, held)}
    _learn_together(net, students, train, now)
    metrics["loss_after"] = measure(net, sample)["loss"]
    for role, student in students.items():
        _check_finite(role, student)
        metrics |= _accuracy(role.name, student.net, held, deployed(student))
    metrics |= {"held_out": float(len(held)), **_deployment(students[_PERSONAL], personal)}
    kept = {name: values for role, student in students.items() for name, values in _kept(role, student).items()}
    kept[_ROUNDS] = np.array([rounds + 1], np.float32)
    trained = dump(net, [tensor.name for tensor in spec.trainable])
    return Fit(trained, len(train), metrics, kept, _own_spec(spec, personal))


def held_out(data: Dataset, share: float, key: tuple[object, ...]) -> tuple[Dataset, Dataset]:
    """Returns the examples to train on and those only to measure on; a share above 0 leaves at least one of each.

    A single example is trained on. `key` is (seed, round, device), and the round does not matter.
    """
    count = min(max(round(share * len(data)), 1), len(data) - 1) if share else 0
    order = Bits.of(key[0], *key[2:], "held-out").permutation(len(data))
    return data.take(np.sort(order[count:])), data.take(np.sort(order[:count]))


def _check_alone(settings: TrainSettings) -> None:
    if settings.transforms or settings.penalty:
        raise ConfigError(
            f"personal models together with {[*settings.transforms, settings.penalty]}",
            remedy="drop the transforms and the penalty: a personal model has a quantiser of its own",
        )


def _phase(personal: Personal, rounds: int) -> Phase:
    warm = rounds < personal.warm_rounds
    return Phase(
        warm=warm,
        pull=0.0 if warm else personal.slope * (rounds - personal.warm_rounds + 1),
        frozen=bool(personal.freeze_round) and rounds >= personal.freeze_round,
    )


def _student(role: _Role, now: _Round, memory: Mapping[str, Array]) -> Student:
    """Returns one of the device's own models as its memory has it, or as it starts."""
    personal, phase = now.personal, now.phase
    own = _own_spec(now.spec, personal)
    net = build(own)
    shapes = {tensor.name: tensor.shape for tensor in own.trainable}
    load(net, _recalled(memory, role.weights, shapes) or (now.base if own is now.spec else initial(own)))
    quantised = [] if phase.warm else quantised_names(personal, own)
    known = _recalled(memory, role.centres, dict.fromkeys(quantised, (personal.centres,)))
    weights = dict(net.named_parameters())
    centres = {name: torch.from_numpy(values.copy()) for name, values in known.items()} or {
        name: initial_centres(weights[name].detach(), personal.centres) for name in quantised
    }
    moving = [w for name, w in weights.items() if w.requires_grad and not (phase.frozen and name in centres)]
    settings = now.settings
    descent = Descent(moving, personal.rate or settings.rate, settings.momentum, settings.decay)
    student = Student(net, centres, descent)
    if phase.frozen:
        harden(student)
    return student


def _own_spec(spec: ModelSpec, personal: Personal) -> ModelSpec:
    if not personal.arch or find_arch(personal.arch)[::2] == find_arch(spec.arch)[::2]:
        return spec
    return spec_of(personal.arch, spec.input, spec.outputs, spec.seed, bell=spec.bell)


def _learn_together(net: nn.Module, students: Mapping[_Role, Student], data: Dataset, now: _Round) -> None:
    settings, personal = now.settings, now.personal
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    descent = Descent(weights, settings.rate, settings.momentum, settings.decay)
    for one in (net, *(student.net for student in students.values())):
        one.train()
    sharpness = 0.0 if now.phase.frozen else personal.sharpness
    for x, y in batches(data, settings.epochs, settings.batch, now.key):
        answer = net(x)
        for role, student in students.items():
            learn(student, Lesson(x, y, answer.detach() if role.taught else None, personal), now.phase)
        said = answers(students[_PERSONAL], x, sharpness) if personal.distil else []
        _learn_global(answer, y, said, descent, personal)


def _learn_global(
    answer: torch.Tensor, y: torch.Tensor, said: list[torch.Tensor], descent: Descent, personal: Personal
) -> None:
    terms = [cross_entropy(answer, y)] if personal.global_loss == "ce+kd" else []
    terms += [personal.distil * distillation(answer, one, personal) for one in said]
    if not terms:
        return
    loss = sum(terms[1:], start=terms[0])
    gradients = torch.autograd.grad(loss, list(descent.weights))
    with torch.no_grad():
        descent.step(gradients)


def _accuracy(
    name: str, net: nn.Module, held: Dataset, weights: Mapping[str, torch.Tensor] | None = None
) -> dict[str, float]:
    """Returns a metric, or none where nothing was held out: unknown is not zero."""
    return {f"accuracy_{name}": measure(net, held, weights=weights)["accuracy"]} if len(held) else {}


def _deployment(student: Student, personal: Personal) -> dict[str, float]:
    """Returns what the personal model takes up and how far its weights are from their centres, once it has any."""
    sizes = {name: weight.numel() for name, weight in student.net.named_parameters()}
    packed = sum(sizes[name] for name in student.centres)
    count = personal.centres if student.centres else 0
    size = packed_bytes(packed, count, len(student.centres), sum(sizes.values()) - packed)
    found = {"personal_bytes": float(size)}
    return found | {"distance": distance(student)} if student.centres else found


def _check_finite(role: _Role, student: Student) -> None:
    """A model that ran away must not be remembered: every later round would start from it."""
    for name, weight in (*student.net.named_parameters(), *student.centres.items()):
        if not bool(torch.isfinite(weight).all()):
            raise Declined(
                f"the {role.name} model's {name} is no longer finite",
                code="E-NONFINITE",
                remedy="lower personal.rate or personal.centre_rate; look at the data",
            )


def _kept(role: _Role, student: Student) -> Params:
    names = [name for name, weight in student.net.named_parameters() if weight.requires_grad]
    weights = {role.weights + name: values for name, values in dump(student.net, names).items()}
    return weights | {role.centres + name: values.numpy().copy() for name, values in student.centres.items()}


def _recalled(memory: Mapping[str, Array], prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> Params:
    """Returns the arrays below a prefix: none, or exactly those of the shapes."""
    found = {name.removeprefix(prefix): values for name, values in memory.items() if name.startswith(prefix)}
    if found and {name: values.shape for name, values in found.items()} != dict(shapes):
        raise StateError(
            f"the memory's {prefix}* hold {[(name, *values.shape) for name, values in found.items()][:3]}, not what"
            f" the settings ask for: {list(shapes.items())[:3]}",
            remedy="keep arch, centres and skip as they are during a run, or start another run",
        )
    return found


def _rounds(memory: Mapping[str, Array]) -> int:
    return int(memory[_ROUNDS][0]) if _ROUNDS in memory else 0
