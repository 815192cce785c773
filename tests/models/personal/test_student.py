"""One step of a student against the formulas, term by term."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from models.personal.centres import centre_gradient, hard, initial_centres, nearest, prox, soft, step_centres
from models.personal.settings import Personal
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

PHASE = Phase(warm=False, pull=0.4, frozen=False)
RATE = 0.1


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small are slower with two threads, many times so where the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def student(count=3, frozen=False):
    """A net of two layers in float64; the first one's weights are quantised."""
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    with torch.no_grad():
        for at, weight in enumerate(net.parameters()):
            weight.copy_(drawn(*weight.shape, seed=at) / 2)
    centres = {"0.weight": initial_centres(net[0].weight.detach(), count)} if count else {}
    moving = [w for name, w in net.named_parameters() if not (frozen and name in centres)]
    return Student(net, centres, Descent(moving, RATE))


def lesson(personal, taught=True):
    return Lesson(drawn(7, 4, seed=9), torch.arange(7) % 3, drawn(7, 3, seed=8) if taught else None, personal)


def values(one):
    return {name: weight.detach().clone() for name, weight in one.net.named_parameters()}


def by_differences(function, at):
    """Returns the gradient of a number by central differences, entry by entry."""
    gradient = torch.zeros_like(at)
    for place in range(at.numel()):
        step = torch.zeros_like(at).view(-1)
        step[place] = 1e-6
        step = step.view(at.shape)
        gradient.view(-1)[place] = (function(at + step) - function(at - step)) / 2e-6
    return gradient


@pytest.mark.parametrize("temper", [True, False])
def test_distillation_is_t_squared_times_the_divergence(temper):
    personal = Personal(temperature=3.0, temper_student=temper)
    teacher, answer = drawn(7, 3, seed=1), drawn(7, 3, seed=2)
    p, q = (teacher / 3).softmax(1), (answer / (3 if temper else 1)).softmax(1)
    torch.testing.assert_close(distillation(teacher, answer, personal), 9 * (p * (p / q).log()).sum(1).mean())
    answer.requires_grad_()
    (gradient,) = torch.autograd.grad(distillation(teacher, answer, personal), answer)
    torch.testing.assert_close(gradient, (3 if temper else 9) * (q - p) / 7)


def test_at_temperature_one_both_forms_agree():
    teacher, answer = drawn(7, 3, seed=1), drawn(7, 3, seed=2)
    both, one = (distillation(teacher, answer, Personal(temperature=1.0, temper_student=on)) for on in (True, False))
    assert torch.equal(both, one)


@pytest.mark.parametrize("distil", [0.0, 0.3, 1.0])
def test_the_loss_weighs_labels_and_teacher(distil):
    found = lesson(Personal(distil=distil))
    answer = drawn(7, 3, seed=3)
    labels, teacher = cross_entropy(answer, found.y), distillation(found.teacher, answer, found.personal)
    torch.testing.assert_close(found.loss(answer), (1 - distil) * labels + distil * teacher)
    assert torch.equal(lesson(Personal(distil=distil), taught=False).loss(answer), labels)


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_one_step_with_hard_centres(kind):
    personal = Personal(distil=0.3, prox=kind, centre_rate=0.01)
    one, given = student(), lesson(personal)
    before, centres = values(one), one.centres["0.weight"].clone()
    learn(one, given, PHASE)
    after = values(one)
    loss = {n: by_differences(lambda w, n=n: given.loss(functional_call(one.net, before | {n: w}, (given.x,))), v)
            for n, v in before.items()}  # fmt: skip
    y = {name: before[name] - RATE * loss[name] for name in before}
    reach = RATE * PHASE.pull / (2 if kind == "l1" else 1)
    wanted = y | {"0.weight": prox(y["0.weight"], centres, reach, kind)}
    for name, value in after.items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-8)
    assert (wanted["0.weight"] - y["0.weight"]).abs().max() > 1e-3

    # The centres: by differences of the loss at the quantised copy of the new weights, assignments fixed.
    places = nearest(after["0.weight"], centres)
    h = by_differences(
        lambda c: given.loss(functional_call(one.net, after | {"0.weight": c[places]}, (given.x,))), centres
    )
    reach = 0.01 * PHASE.pull / (2 if kind == "l1" else 1)
    moved = step_centres(centres, after["0.weight"], -0.01 * h, reach, kind)
    torch.testing.assert_close(one.centres["0.weight"], moved, rtol=0, atol=1e-9)
    assert (moved - centres).abs().min() > 1e-5


def test_one_step_with_soft_centres():
    personal = Personal(sharpness=6.0, centre_rate=0.01, prox="l2")
    one, given = student(), lesson(personal, taught=False)
    before, centres = values(one), one.centres["0.weight"].clone()
    learn(one, given, Phase(warm=False, pull=0.0, frozen=False))

    def loss(weights):
        softly = weights | {"0.weight": soft(weights["0.weight"], centres, 6.0)}
        return sum(given.loss(functional_call(one.net, w, (given.x,))) for w in (weights, softly))

    for name, value in values(one).items():
        gradient = by_differences(lambda w, n=name: loss(before | {n: w}), before[name])
        torch.testing.assert_close(value, before[name] - RATE * gradient, rtol=0, atol=1e-8)
    after = values(one)
    h = by_differences(
        lambda c: given.loss(
            functional_call(one.net, after | {"0.weight": soft(after["0.weight"], c, 6.0)}, (given.x,))
        ),
        centres,
    )
    torch.testing.assert_close(one.centres["0.weight"], centres - 0.01 * h, rtol=0, atol=1e-8)


def test_centre_gradients_are_clipped():
    one, given = student(), lesson(Personal(centre_clip=1e-3, centre_rate=1.0, prox="l2"))
    centres = one.centres["0.weight"].clone()
    copy = hard(values(one)["0.weight"], centres).requires_grad_()
    (flow,) = torch.autograd.grad(given.loss(functional_call(one.net, {"0.weight": copy}, (given.x,))), copy)
    assert centre_gradient(flow, values(one)["0.weight"], centres).abs().min() > 1e-3
    learn(one, given, Phase(warm=False, pull=0.0, frozen=False))
    torch.testing.assert_close((one.centres["0.weight"] - centres).abs(), torch.full_like(centres, 1e-3))


def test_fixed_centres_stay():
    one = student()
    centres = one.centres["0.weight"].clone()
    learn(one, lesson(Personal(learn_centres=False)), PHASE)
    assert torch.equal(one.centres["0.weight"], centres)


def test_frozen_tensors_stand_still_at_their_centres_and_the_others_move():
    one = student(frozen=True)
    harden(one)
    before, centres = values(one), one.centres["0.weight"].clone()
    assert torch.isin(before["0.weight"], centres).all()
    learn(one, lesson(Personal(sharpness=6.0)), Phase(warm=False, pull=0.4, frozen=True))
    moved = {name for name, value in values(one).items() if not torch.equal(value, before[name])}
    assert moved == {"0.bias", "2.weight", "2.bias"}
    assert torch.equal(one.centres["0.weight"], centres)
    assert distance(one) == 0


def test_l1_keeps_weights_within_one_or_the_centres():
    one = student()
    with torch.no_grad():
        one.net[0].weight[0, 0], one.net[0].weight[0, 1] = 5.0, -5.0
    one.centres["0.weight"] = torch.tensor([-1.5, 0.0, 0.5], dtype=torch.float64)
    learn(one, lesson(Personal()), Phase(warm=False, pull=1e-3, frozen=False))
    weight = values(one)["0.weight"]
    assert (weight.min(), weight.max()) == (-1.5, 1.0)


def test_what_is_deployed_and_said():
    one, x = student(), drawn(7, 4, seed=9)
    own, centres = values(one), one.centres["0.weight"]
    weights = deployed(one)
    assert len(weights["0.weight"].unique()) <= 3
    assert torch.equal(weights["0.weight"], hard(own["0.weight"], centres))
    assert all(torch.equal(weights[name], own[name]) for name in own if name != "0.weight")
    plain, quantised = answers(one, x, 0.0)
    assert torch.equal(plain, one.net(x))
    assert torch.equal(quantised, functional_call(one.net, weights, (x,)))
    assert not torch.equal(plain, quantised)
    assert len(answers(student(0), x, 0.0)) == 1
    away = (own["0.weight"] - weights["0.weight"]).abs().mean()
    assert distance(one) == pytest.approx(float(away))
