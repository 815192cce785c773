"""One model that may only take few values, and one step of its learning (QuPeD; see centres.py for the quantiser).

With f the cross-entropy of a batch and KD what its answers lack of a teacher's, both of the same batch:

    loss(z)  = (1 - lambda_p) f(z) + lambda_p T^2 KL(softmax(z_teacher / T) || softmax(z / T))
    1.  y <- x - eta1 (grad loss at x  [+ grad loss at soft_c(x), if the quantiser is soft])
    2.  x <- prox(y), the quantised tensors alone
    3.  h <- grad_c loss at the quantised copy of the new x, clipped
    4.  c <- step against h and towards the members, ascending again
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from models.personal.centres import centre_gradient, hard, prox, soft, soft_slope, step_centres
from models.personal.settings import Personal

__all__ = [
    "Descent",
    "Lesson",
    "Phase",
    "Student",
    "answers",
    "deployed",
    "distance",
    "distillation",
    "harden",
    "learn",
]


@dataclass(slots=True)
class Descent:
    """SGD on some weights: g <- g + decay w,   v <- momentum v + g,   w <- w - rate v. Keeps v."""

    weights: Sequence[Tensor]
    rate: float
    momentum: float = 0.0
    decay: float = 0.0
    speeds: Sequence[Tensor] = ()

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Moves the weights."""
        if self.momentum and not self.speeds:
            self.speeds = [torch.zeros_like(weight) for weight in self.weights]
        for at, weight in enumerate(self.weights):
            gradient = gradients[at] + self.decay * weight if self.decay else gradients[at]
            if self.momentum:
                gradient = self.speeds[at].mul_(self.momentum).add_(gradient)
            weight.sub_(gradient, alpha=self.rate)


@dataclass(frozen=True, slots=True)
class Phase:
    """Where a device stands. `warm`: no centres yet; `pull` is lambda; `frozen`: quantised tensors stand still."""

    warm: bool
    pull: float
    frozen: bool


@dataclass(frozen=True, slots=True)
class Lesson:
    """A batch, its labels, and what the teacher says to it (None: learn alone)."""

    x: Tensor
    y: Tensor
    teacher: Tensor | None
    personal: Personal

    def loss(self, answer: Tensor) -> Tensor:
        """Returns (1 - lambda_p) f + lambda_p T^2 KL of an answer; without a teacher or lambda_p plain f."""
        labels = cross_entropy(answer, self.y)
        share = self.personal.distil
        if self.teacher is None or not share:
            return labels
        return (1 - share) * labels + share * distillation(self.teacher, answer, self.personal)


@dataclass(slots=True)
class Student:
    """A net and the centres of its quantised tensors (none in full precision); `descent` moves what may move."""

    net: nn.Module
    centres: dict[str, Tensor]
    descent: Descent


def learn(student: Student, lesson: Lesson, phase: Phase) -> None:
    """Moves weights and centres by one step."""
    personal = lesson.personal
    own = dict(student.net.named_parameters())
    gradients = _gradients(lesson.loss(student.net(lesson.x)), student.descent.weights)
    if personal.sharpness and student.centres and not phase.frozen:
        softly = _soft_gradients(student, lesson)
        gradients = [one + two for one, two in zip(gradients, softly, strict=True)]
    with torch.no_grad():
        student.descent.step(gradients)
        if phase.frozen:
            return
        for name, centres in student.centres.items():
            own[name].copy_(_drawn(own[name], centres, student.descent.rate * phase.pull, personal.prox))
    if student.centres and personal.learn_centres:
        _learn_centres(student, lesson, phase)


def distillation(teacher: Tensor, answer: Tensor, personal: Personal) -> Tensor:
    """Returns T^2 KL(teacher || answer), the mean over the batch, of answers softened by the temperature T."""
    softness = personal.temperature
    wanted = log_softmax(teacher / softness, 1)
    given = log_softmax(answer / softness if personal.temper_student else answer, 1)
    return softness**2 * kl_div(given, wanted, reduction="batchmean", log_target=True)


def answers(student: Student, x: Tensor, sharpness: float) -> list[Tensor]:
    """Returns what a student says, without gradients: as it is and, if it has centres, with its quantised weights."""
    with torch.no_grad():
        plain = student.net(x)
        if not student.centres:
            return [plain]
        return [plain, functional_call(student.net, _quantised(student, sharpness), (x,))]


def deployed(student: Student) -> dict[str, Tensor]:
    """Returns all weights as they are used: quantised tensors at their centres, however soft the training was."""
    own = {name: weight.detach() for name, weight in student.net.named_parameters()}
    return own | _quantised(student, 0.0)


def harden(student: Student) -> None:
    """Puts quantised tensors at their nearest centres."""
    own = dict(student.net.named_parameters())
    with torch.no_grad():
        for name, values in _quantised(student, 0.0).items():
            own[name].copy_(values)


def distance(student: Student) -> float:
    """Returns the mean distance of the quantised tensors' values to their nearest centres."""
    own = dict(student.net.named_parameters())
    places = _quantised(student, 0.0)
    total = sum(float((own[name].detach() - values).abs().double().sum()) for name, values in places.items())
    return total / sum(values.numel() for values in places.values())


def _gradients(loss: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(weights))) if weights else []


def _quantised(student: Student, sharpness: float) -> dict[str, Tensor]:
    own = dict(student.net.named_parameters())
    values = {}
    for name, centres in student.centres.items():
        weight = own[name].detach()
        values[name] = soft(weight, centres, sharpness) if sharpness else hard(weight, centres)
    return values


def _soft_gradients(student: Student, lesson: Lesson) -> list[Tensor]:
    """Returns the gradients of the loss at the softly quantised copy, with respect to what may move."""
    own, sharpness = dict(student.net.named_parameters()), lesson.personal.sharpness
    copy = {name: values.requires_grad_() for name, values in _quantised(student, sharpness).items()}
    names = {id(weight): name for name, weight in own.items()}
    called = [copy.get(names[id(weight)], weight) for weight in student.descent.weights]
    loss = lesson.loss(functional_call(student.net, copy, (lesson.x,)))
    gradients = _gradients(loss, called)
    for at, weight in enumerate(student.descent.weights):
        if (name := names[id(weight)]) in copy:
            gradients[at] = gradients[at] * soft_slope(weight.detach(), student.centres[name], sharpness)
    return gradients


def _drawn(y: Tensor, centres: Tensor, strength: float, kind: str) -> Tensor:
    """Returns prox(y); with l1 within [-1, 1] as in the authors' code, or as far as the centres reach."""
    if not strength:
        return y
    drawn = prox(y, centres, _reach(strength, kind), kind)
    if kind == "l2":
        return drawn
    return drawn.clamp(min(-1.0, float(centres[0])), max(1.0, float(centres[-1])))


def _learn_centres(student: Student, lesson: Lesson, phase: Phase) -> None:
    personal = lesson.personal
    own: Mapping[str, Tensor] = dict(student.net.named_parameters())
    copy = {name: values.requires_grad_() for name, values in _quantised(student, personal.sharpness).items()}
    loss = lesson.loss(functional_call(student.net, copy, (lesson.x,)))
    flows = torch.autograd.grad(loss, [*copy.values()])
    rate = personal.centre_rate
    for name, flow in zip(copy, flows, strict=True):
        weight, centres = own[name].detach(), student.centres[name]
        gradient = centre_gradient(flow, weight, centres, personal.sharpness)
        shift = -rate * gradient.clamp(-personal.centre_clip, personal.centre_clip)
        reach = _reach(rate * phase.pull, personal.prox)
        student.centres[name] = step_centres(centres, weight, shift, reach, personal.prox)


def _reach(strength: float, kind: str) -> float:
    """Returns eta lambda in the convention of centres.py."""
    return strength / 2 if kind == "l1" else strength
