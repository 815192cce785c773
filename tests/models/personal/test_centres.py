"""Claims 1 to 5 of QuPeD (docs/methods.md): the exact ones, against grid searches and finite differences."""

from __future__ import annotations

from math import ceil

import pytest
import torch

from models.personal.centres import (
    centre_gradient,
    hard,
    initial_centres,
    nearest,
    packed_bytes,
    prox,
    soft,
    soft_slope,
    step_centres,
)

CENTRES = torch.tensor([-0.7, -0.1, 0.3, 0.4], dtype=torch.float64)
NONE = torch.zeros(4, dtype=torch.float64)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tensors this small are slower with two threads, many times so where the cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def values(count=400, seed=1, spread=1.2):
    return (torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1) * spread


def gap(x, centres=CENTRES):
    """Returns the distance to the nearest centre, by looking at all of them."""
    return (x[..., None] - centres).abs().min(-1).values


@pytest.mark.parametrize("reach", [0.0, 0.03, 0.2, 5.0])
@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_prox_is_the_minimum_of_a_grid_search(kind, reach):
    y = values(200)
    grid = torch.linspace(-1.5, 1.5, 20001, dtype=torch.float64)
    away = gap(grid) if kind == "l1" else gap(grid) ** 2

    def cost(z, away):
        return (z - y[:, None]) ** 2 / 2 + reach * away

    found = prox(y, CENTRES, reach, kind)
    own = cost(found[:, None], (gap(found) if kind == "l1" else gap(found) ** 2)[:, None])[:, 0]
    best = cost(grid[None], away[None]).min(1)
    assert (own <= best.values + 1e-12).all()
    # Where two centres are about equally far there are two minima; elsewhere the place must agree as well.
    clear = (y[:, None] - (CENTRES[1:] + CENTRES[:-1]) / 2).abs().min(1).values > 1e-3
    torch.testing.assert_close(found[clear], grid[best.indices][clear], rtol=0, atol=1.6e-4)


def test_prox_l1_stays_on_its_side_and_ends_at_the_centre():
    y = values()
    goal = hard(y, CENTRES)
    found = prox(y, CENTRES, 0.05, "l1")
    torch.testing.assert_close((found - goal).abs(), ((y - goal).abs() - 0.05).clamp(min=0))
    assert ((found - goal) * (y - goal) >= 0).all()
    assert torch.equal(prox(CENTRES, CENTRES, 0.05, "l1"), CENTRES)
    assert torch.equal(prox(y, CENTRES, 10.0, "l1"), goal)
    torch.testing.assert_close(prox(y, CENTRES, 0.3, "l2"), (y + 0.6 * goal) / 1.6)


def test_hard_is_the_nearest_centre():
    x = values()
    assert torch.equal((x - hard(x, CENTRES)).abs(), gap(x))
    assert torch.equal(
        nearest(torch.tensor([-1.0, 0.0, 0.5, 9.0]), torch.tensor([-1.0, 0.0, 1.0])), torch.tensor([0, 1, 1, 2])
    )
    assert torch.equal(hard(x.view(20, 20), CENTRES), hard(x, CENTRES).view(20, 20))


def test_soft_is_hard_when_sharp_and_a_rising_staircase_between_the_outer_centres():
    x = values().sort().values
    clear = (x[:, None] - (CENTRES[1:] + CENTRES[:-1]) / 2).abs().min(1).values > 0.01
    assert 0 < int((~clear).sum()) < len(x) / 2
    torch.testing.assert_close(soft(x, CENTRES, 5000.0)[clear], hard(x, CENTRES)[clear])
    for sharpness in (1.0, 20.0, 300.0):
        found = soft(x, CENTRES, sharpness)
        assert (found.diff() >= -1e-12).all()
        assert found.min() >= CENTRES[0] - 1e-12
        assert found.max() <= CENTRES[-1] + 1e-12
    assert (soft(x, CENTRES, 20.0) - hard(x, CENTRES)).abs().max() > 0.05


@pytest.mark.parametrize("sharpness", [2.0, 20.0])
def test_soft_derivatives_are_finite_differences(sharpness):
    x, upstream, step = values(), values(seed=2), 1e-6

    def slope(move):
        return (move(step) - move(-step)) / (2 * step)

    by_x = slope(lambda by: soft(x + by, CENTRES, sharpness))
    torch.testing.assert_close(soft_slope(x, CENTRES, sharpness), by_x, rtol=0, atol=1e-7)
    found = centre_gradient(upstream, x, CENTRES, sharpness)
    for at, unit in enumerate(torch.eye(4, dtype=torch.float64)):
        by_centre = slope(lambda by, unit=unit: upstream @ soft(x, CENTRES + by * unit, sharpness))
        torch.testing.assert_close(found[at], by_centre, rtol=0, atol=1e-6)


def test_hard_centre_gradient_is_the_sum_over_the_cluster():
    x, upstream = values().view(20, 20), values(seed=2).view(20, 20)
    found = centre_gradient(upstream, x, CENTRES)
    wanted = [upstream[nearest(x, CENTRES) == at].sum() for at in range(4)]
    torch.testing.assert_close(found, torch.stack(wanted))
    sharp = centre_gradient(upstream, x, CENTRES, 1e6)
    torch.testing.assert_close(found, sharp, rtol=0, atol=1e-6)
    # A centre that is moved takes its members' values along: the same number by finite differences.
    for at, unit in enumerate(torch.eye(4, dtype=torch.float64)):
        change = (upstream * (hard(x, CENTRES + 1e-9 * unit) - hard(x, CENTRES - 1e-9 * unit))).sum() / 2e-9
        torch.testing.assert_close(found[at], change, rtol=0, atol=1e-5)


def test_an_empty_cluster_has_no_gradient_and_stays():
    x = values().clamp(min=0.0)
    assert centre_gradient(values(seed=2), x, CENTRES)[0] == 0
    for kind in ("l1", "l2"):
        assert step_centres(CENTRES, x, NONE, 1e-3, kind)[0] == CENTRES[0]


def cluster(at, x):
    return x[nearest(x, CENTRES) == at]


def test_l1_draws_a_centre_towards_the_median():
    x = values()
    reach = 1e-5
    moved = step_centres(CENTRES, x, NONE, reach, "l1")
    for at in range(4):
        members = cluster(at, x)
        lead = int((members > CENTRES[at]).sum()) - int((members < CENTRES[at]).sum())
        assert lead, "every centre of this test must have something to move towards"
        torch.testing.assert_close(moved[at], CENTRES[at] + reach * lead)
        assert (moved[at] - members.median()).abs() < (CENTRES[at] - members.median()).abs()
        assert (members - moved[at]).abs().sum() < (members - CENTRES[at]).abs().sum()


def test_l1_ends_at_the_median_however_many_members_there_are():
    x = values(4001)
    moved = step_centres(CENTRES, x, NONE, 10.0, "l1")
    for at in range(4):
        members = cluster(at, x).sort().values
        low, high = members[(len(members) - 1) // 2], members[len(members) // 2]
        assert low <= moved[at] <= high
        assert torch.isin(moved[at], members)
    at_rest = torch.cat([CENTRES, CENTRES, CENTRES + 0.01])
    assert torch.equal(step_centres(CENTRES, at_rest, NONE, 10.0, "l1"), CENTRES)


def test_l2_draws_a_centre_towards_the_mean():
    x = values()
    shift = torch.tensor([0.01, -0.02, 0.03, 0.0], dtype=torch.float64)
    moved = step_centres(CENTRES, x, shift, 0.002, "l2")
    still = step_centres(CENTRES, x, NONE, 0.002, "l2")
    far = step_centres(CENTRES, x, NONE, 1e9, "l2")
    for at in range(4):
        members, grid = cluster(at, x), torch.linspace(-1, 1, 20001, dtype=torch.float64)
        cost = (grid - CENTRES[at] - shift[at]) ** 2 / 2 + 0.002 * ((members[:, None] - grid) ** 2).sum(0)
        torch.testing.assert_close(moved[at], grid[cost.argmin()], rtol=0, atol=6e-5)
        assert (still[at] - members.mean()).abs() < (CENTRES[at] - members.mean()).abs()
        torch.testing.assert_close(far[at], members.mean())


def test_centres_stay_ascending_when_a_shift_makes_them_cross():
    moved = step_centres(CENTRES, values(), torch.tensor([2.0, 0.0, 0.0, -2.0], dtype=torch.float64), 0.0, "l1")
    torch.testing.assert_close(moved, torch.tensor([-1.6, -0.1, 0.3, 1.3], dtype=torch.float64))


@pytest.mark.parametrize("count", [2, 3, 4, 16])
def test_quantised_tensors_have_few_values(count):
    x = values().float().view(10, 40)
    centres = initial_centres(x, count)
    assert torch.equal(centres, centres.sort().values)
    assert len(centres) == count
    found = hard(x, centres).unique()
    assert 1 < len(found) <= count
    assert torch.isin(found, centres).all()


def test_initial_centres():
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 5.0])
    assert torch.equal(initial_centres(x, 2), torch.tensor([-2.0, 2.0]))
    assert torch.equal(initial_centres(x, 5), torch.tensor([-3.0, -1.0, 1.0, 3.0, 5.0]))
    assert torch.equal(initial_centres(x.abs() + 1, 2), torch.tensor([1.0, 6.0])), "no value below zero: the range"
    assert torch.equal(initial_centres(torch.zeros(3), 4), torch.zeros(4))


@pytest.mark.parametrize(("centres", "bits"), [(2, 1), (3, 2), (4, 2), (5, 3), (16, 4), (256, 8)])
def test_packed_size(centres, bits):
    for quantised, tensors, full in ((1001, 3, 50), (8, 1, 0)):
        wanted = ceil(bits * quantised / 8) + 4 * centres * tensors + 4 * full
        assert packed_bytes(quantised, centres, tensors, full) == wanted
    assert packed_bytes(1 << 20, centres, 1, 0) * 32 / (4 << 20) == pytest.approx(bits, rel=1e-2)


def test_packed_size_in_full_precision():
    assert packed_bytes(0, 0, 0, 77) == 308
