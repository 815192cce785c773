"""Down go differences: who missed rounds fetches the chain and what it lacks, who is new starts from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from coordinator.home import open_home
from coordinator.recipe import load_recipe
from coordinator.rounds.descent import chain_of, named
from edge_agent.fetch import held_models
from models.init import initial
from tests.end_to_end.delays import accepted, come_back, finish, go_away, noted, published, turn_until
from tests.memory_fleet import MemoryFleet
from wire.messages.blob import apply_blob, digest_bytes
from wire.messages.chain import decode_chain
from wire.messages.plan import decode_plan
from wire.params import params_digest

THIN = 'downlink.stages=[{stage="topk",share=0.01},{stage="levels",levels=7}]'  # dozens of deltas below a snapshot
WIDE = 'downlink.stages=[{stage="levels",levels=7}]'  # seven


@pytest.fixture
def meet(tmp_path):
    """Returns a function that brings some devices together, of which two take part in a round."""
    with open_home(tmp_path / "home") as home:

        def make(*settings, devices=3, rounds=14):
            wanted = ['model="vector-5000"', f"rounds={rounds}", "devices.goal=2", *settings]
            recipe = load_recipe("echo", wanted)
            return MemoryFleet(home, home.new_run(recipe), tmp_path, recipe, devices=devices)

        yield make


def planned(fleet):
    """Returns the plans of all rounds so far."""
    rows = fleet.home.database.rows("SELECT plan FROM rounds WHERE run = ? ORDER BY round", fleet.run)
    return [decode_plan(row["plan"]) for row in rows if row["plan"]]


@dataclass(frozen=True)
class Way:
    """What the plans up to some round say: every delta so far, oldest first, and the last plan."""

    plans: list

    @property
    def deltas(self):
        return {ref.target: ref for plan in self.plans for ref in plan.blobs if ref.source}

    def lacking(self, held):
        """Returns the deltas from the nearest held model to the last plan's base."""
        found, at = [], self.plans[-1].base
        while at not in held:
            found.append(self.deltas[at])
            at = self.deltas[at].source
        return found[::-1]


def down_bytes(fleet, device, number):
    (line,) = [line for line in noted(fleet, "accepted", device=device) if line["round"] == number]
    return line["metrics"]["down_bytes"]


def until_round(fleet, number):
    turn_until(fleet, lambda: number in published(fleet))


def next_share(fleet, device, after):
    """Turns until a device takes part in a round after `after`; returns that round's number."""
    turn_until(fleet, lambda: any(number > after for number, _ in accepted(fleet, device)))
    return next(number for number, _ in accepted(fleet, device) if number > after)


def nobody_failed(fleet):
    return not noted(fleet, "refused") and not noted(fleet, "declined") and not noted(fleet, "phase", phase="abandoned")


@pytest.mark.parametrize("missed", [1, 4, *(pytest.param(missed, marks=pytest.mark.long) for missed in (3, 8))])
def test_who_missed_rounds_fetches_the_deltas_it_lacks_and_no_more(meet, missed):
    fleet = meet(THIN, "devices.quorum=0.5", "devices.selection_timeout_s=1", devices=2, rounds=missed + 4)
    away = fleet.agents[1]
    until_round(fleet, 1)
    turn_until(fleet, lambda: not away.uploads)
    held = set(held_models(away.store))
    go_away(fleet, away)
    until_round(fleet, 1 + missed)
    come_back(fleet, away)
    back = next_share(fleet, "dev-1", 1 + missed)
    finish(fleet)
    way = Way(planned(fleet)[: back + 1])
    lacking = way.lacking(held)
    assert missed < len(lacking) <= missed + 2
    chained = way.plans[-1].chain_bytes if len(lacking) > 4 else 0
    assert (chained > 0) == (missed >= 4)
    assert down_bytes(fleet, "dev-1", back) == chained + sum(ref.size for ref in lacking)
    assert nobody_failed(fleet)


def test_a_new_device_starts_from_the_seed_through_the_chain(meet):
    fleet = meet(THIN, devices=2)
    until_round(fleet, 8)
    fleet.agents.append(fleet.agent(2))
    number = next_share(fleet, "dev-2", 8)
    finish(fleet)
    way = Way(planned(fleet)[: number + 1])
    plan = way.plans[-1]
    lacking = way.lacking({plan.initial})
    assert len(lacking) == number
    sizes = plan.spec_bytes + plan.chain_bytes + sum(ref.size for ref in lacking)
    assert plan.chain_bytes == 32 + 72 * (number - 4)
    assert down_bytes(fleet, "dev-2", number) == sizes < plan.blobs[-1].size
    assert nobody_failed(fleet)


def test_a_snapshot_is_fetched_where_it_is_smaller(meet):
    fleet = meet(WIDE, devices=2)
    until_round(fleet, 9)
    fleet.agents.append(fleet.agent(2))
    number = next_share(fleet, "dev-2", 9)
    finish(fleet)
    plan = planned(fleet)[number]
    snapshot = plan.blobs[-1]
    assert snapshot.source == ""
    assert sum(ref.size for ref in Way(planned(fleet)[: number + 1]).lacking({plan.initial})) > snapshot.size
    assert down_bytes(fleet, "dev-2", number) == plan.spec_bytes + plan.chain_bytes + snapshot.size
    assert nobody_failed(fleet)


def test_who_took_part_in_the_last_round_fetches_one_delta(meet):
    fleet = meet(THIN, devices=2, rounds=8)
    finish(fleet)
    plans = planned(fleet)
    for number in range(1, 8):
        newest = plans[number].blobs[-2]
        assert newest.target == plans[number].base
        assert [down_bytes(fleet, f"dev-{at}", number) for at in range(2)] == [newest.size] * 2


@pytest.mark.parametrize("stages", [THIN, WIDE])
def test_the_blobs_that_the_chain_names_are_kept_and_no_others(meet, stages):
    fleet = meet(stages, devices=2, rounds=12)
    planner = fleet.federation.state.planner
    folder = planner.folder / "blobs"
    for number in range(12):
        until_round(fleet, number)
        blobs, chain = planner.state.blobs, chain_of(planner.state.blobs)
        older = decode_chain((folder / digest_bytes(chain)).read_bytes()) if chain else ()
        assert (*older, *named(blobs)) == blobs
        assert len(older) == max(0, len(blobs) - 5)
        kept = {path.name for path in folder.iterdir() if len(path.name) == 64} - {planner.spec_digest}
        assert kept == {ref.digest for ref in blobs} | ({digest_bytes(chain)} if chain else set())
        assert walked(planner, blobs, folder) == planner.base
    assert (len(blobs) == 13) == (stages == THIN)
    deltas = sum(ref.size for ref in blobs[:-1])
    assert deltas < blobs[-1].size


def walked(planner, blobs, folder: Path):
    """Returns the digest of the model that all deltas together lead to, from where the first one starts."""
    deltas = [ref for ref in blobs if ref.source]
    start = initial(planner.spec)
    if deltas[0].source != params_digest(start):
        return apply_and_name(planner, blobs[-1], folder)
    for ref in deltas:
        start = apply_blob((folder / ref.digest).read_bytes(), ref, planner.spec, start)
    return params_digest(start)


def apply_and_name(planner, snapshot, folder):
    return params_digest(apply_blob((folder / snapshot.digest).read_bytes(), snapshot, planner.spec, None))


def test_partial_participation_comes_to_the_same_model_again(meet, tmp_path):
    """Whom the round draws follows from the seed, so the whole run does, whoever had to catch up."""
    one = finish(meet(THIN, devices=5, rounds=6))
    with open_home(tmp_path / "again") as home:
        recipe = load_recipe("echo", ['model="vector-5000"', "rounds=6", "devices.goal=2", THIN])
        again = MemoryFleet(home, home.new_run(recipe), tmp_path / "again", recipe, devices=5)
        assert finish(again) == one
        assert len({line["device"] for line in noted(again, "accepted")}) >= 3
        assert nobody_failed(again)
