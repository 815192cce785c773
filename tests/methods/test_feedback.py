"""Error feedback in a whole federation: killed between any two steps, refused, kept waiting, it comes out the same."""

from __future__ import annotations

import pytest

from coordinator.home import open_home
from coordinator.recipe import load_recipe
from edge_agent import agent as agent_module
from edge_agent.kept.memory import MEMORY, newest_memory
from edge_agent.training import child as child_module
from edge_agent.training import job as job_module
from edge_agent.training.echo import echo
from edge_agent.training.recall import recall
from tests.end_to_end.delays import come_back, finish, go_away, leave_with_an_update, noted, published, turn_until
from tests.memory_fleet import MemoryFleet
from wire.params import add, delta

FEEDBACK = ["uplink.feedback=true", 'uplink.stages=[{stage="topk",share=0.1},{stage="levels",levels=3}]']
RUN = "twin"


class Killed(BaseException):
    """The process is gone; nothing in it may catch this."""


@pytest.fixture
def meet(tmp_path):
    """Returns a function that brings two devices together, whose updates are thinned with feedback."""
    homes = []

    def make(*settings, rounds=4, folder="one"):
        recipe = load_recipe("echo", ['model="vector-64"', f"rounds={rounds}", "devices.goal=2", *FEEDBACK, *settings])
        home = open_home(tmp_path / folder / "home")
        homes.append(home)
        opened = home.__enter__()
        return MemoryFleet(opened, opened.new_run(recipe, name=RUN), tmp_path / folder, recipe)

    yield make
    for home in homes:
        home.__exit__(None, None, None)


def memories(fleet):
    """Returns the files of every device's memory, without those that no later round starts from."""
    found = {}
    for agent in fleet.agents:
        kept = newest_memory(agent.config.state_dir / MEMORY, RUN, 1 << 31)
        found[agent.config.device] = kept and (kept.path.name, kept.path.read_bytes())
    return found


def end(fleet):
    """Runs to the end and until every receipt is read; returns the model's digest and the memories."""
    model = finish(fleet)
    turn_until(fleet, lambda: not any(agent.uploads for agent in fleet.agents))
    return model, memories(fleet)


def dying(target, when, nth, alive):
    """Wraps a function so that its nth call is the end of the process, before or after it did its work."""
    calls = []

    def wrapped(*args, **kwargs):
        calls.append(None)
        if len(calls) != nth or not alive:
            return target(*args, **kwargs)
        if when == "after":
            target(*args, **kwargs)
        alive.clear()
        raise Killed

    return wrapped


def turn_and_revive(fleet):
    """Lets everybody act; whoever was killed is started again from its files."""
    agent = None
    try:
        fleet.federation.step(0.0)
        for agent in fleet.agents:
            agent.step(0.0)
        fleet.clock_s += 0.05
    except Killed:
        at = fleet.agents.index(agent)
        agent.transport.drop()
        fleet.agents[at] = fleet.agent(at)


STEPS = [
    (job_module, "remember", "before"),
    (job_module, "remember", "after"),
    (child_module, "run_job", "after"),
    (agent_module, "settle_memory", "before"),
    (agent_module, "settle_memory", "after"),
    (agent_module, "save_standing", "before"),
    (agent_module, "save_standing", "after"),
    (agent_module, "remove", "before"),
    (agent_module, "remove", "after"),
]


@pytest.mark.parametrize("nth", [3, pytest.param(6, marks=pytest.mark.long)])
@pytest.mark.parametrize(("module", "name", "when"), STEPS, ids=lambda value: getattr(value, "__name__", value))
def test_killed_between_any_two_steps_it_ends_the_same(meet, monkeypatch, module, name, when, nth):
    wanted = end(meet(folder="undisturbed"))
    alive = [True]
    fleet = meet()
    monkeypatch.setattr(module, name, dying(getattr(module, name), when, nth, alive))
    for _ in range(20_000):
        turn_and_revive(fleet)
        if fleet.federation.over:
            break
    assert not alive, "nobody was killed"
    assert end(fleet) == wanted
    assert len(noted(fleet, "accepted")) == 8


def test_feedback_is_used_and_changes_the_model(meet):
    with_it, kept = end(meet())
    without, nothing = end(meet("uplink.feedback=false", folder="without"))
    assert with_it != without
    assert set(nothing.values()) == {None}
    assert {name for name, _ in kept.values()} == {f"{RUN}.3.accepted.memory"}


def test_only_what_the_next_round_starts_from_is_kept(meet):
    fleet = meet(rounds=6)
    end(fleet)
    for agent in fleet.agents:
        names = sorted(path.name for path in (agent.config.state_dir / MEMORY).iterdir())
        assert names == [f"{RUN}.4.accepted.memory", f"{RUN}.5.accepted.memory"]


def part(arrays, prefix):
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


def test_a_refused_update_comes_back_whole(meet):
    fleet = meet("devices.quorum=0.5", "devices.deadline_s=2", "devices.selection_timeout_s=2", rounds=8)
    late = fleet.agents[1]
    folder = late.config.state_dir / MEMORY
    leave_with_an_update(fleet, late)
    turn_until(fleet, lambda: 1 in published(fleet))
    come_back(fleet, late)
    turn_until(fleet, lambda: noted(fleet, "refused", device="dev-1"))
    turn_until(fleet, (folder / f"{RUN}.0.refused.memory").exists)
    before, fate = recall(folder, RUN, 1)
    assert fate == "refused"
    turn_until(fleet, lambda: any(upload.entry.round > 0 for upload in late.uploads.values()))
    number = next(upload.entry.round for upload in late.uploads.values())
    held = fleet.federation.state.planner.state.held
    change = delta(echo(held, (fleet.recipe.seed, number, "dev-1")), held)
    after, fate = recall(folder, RUN, number + 1)
    assert fate == "pending"
    wanted = add(change, part(before, "wanted/"))
    for name, values in part(after, "wanted/").items():
        assert values.tobytes() == wanted[name].tobytes()
        assert (part(after, "residual/")[name] != 0).any()
    finish(fleet)


def test_a_device_waits_for_the_fate_of_its_last_update(meet, monkeypatch):
    wanted = end(meet(folder="undisturbed"))
    fleet = meet()
    patient = fleet.agents[0]
    settle = patient._settle
    monkeypatch.setattr(patient, "_settle", lambda receipt, now_s: None)
    turn_until(fleet, lambda: 0 in published(fleet))
    turn_until(fleet, lambda: patient.work and patient.work.plan.round == 1 and patient.work.fetch.complete)
    for _ in range(50):
        fleet.turn()
        assert not patient.work.training
    assert [upload.entry.round for upload in patient.uploads.values()] == [0]
    monkeypatch.setattr(patient, "_settle", settle)
    assert end(fleet) == wanted


def test_without_feedback_no_device_waits(meet, monkeypatch):
    fleet = meet("uplink.feedback=false")
    hasty = fleet.agents[0]
    monkeypatch.setattr(hasty, "_settle", lambda receipt, now_s: None)
    turn_until(fleet, lambda: 1 in published(fleet) or len(hasty.uploads) > 1)
    assert len(hasty.uploads) > 1


def test_a_damaged_memory_costs_one_round_and_is_named(meet):
    fleet = meet("devices.quorum=0.5", rounds=5)
    turn_until(fleet, lambda: 1 in published(fleet))
    folder = fleet.agents[1].config.state_dir / MEMORY
    go_away(fleet, fleet.agents[1])
    newest_memory(folder, RUN, 1 << 31).path.write_bytes(b"torn")
    come_back(fleet, fleet.agents[1])
    finish(fleet)
    assert {(line["device"], line["code"]) for line in noted(fleet, "declined")} == {("dev-1", "E-MEMORY-FILE")}
    assert len(noted(fleet, "declined")) == 1
    assert len(list(folder.glob("*.damaged"))) == 1
    assert len(noted(fleet, "accepted", device="dev-1")) == 4


def test_an_update_of_a_round_that_was_given_up_comes_back_whole(meet):
    """Quorum is both devices: the round of one accepted update is given up, and that update counts nowhere."""
    fleet = meet("devices.deadline_s=2", "devices.selection_timeout_s=2", rounds=3)
    folder = fleet.agents[0].config.state_dir / MEMORY
    leave_with_an_update(fleet, fleet.agents[1])
    turn_until(fleet, lambda: noted(fleet, "phase", phase="abandoned"))
    assert noted(fleet, "refused", device="dev-0", code="E-ROUND-ABANDONED")
    come_back(fleet, fleet.agents[1])
    before, _ = recall(folder, RUN, 1)
    turn_until(fleet, lambda: any(upload.entry.round > 0 for upload in fleet.agents[0].uploads.values()))
    number = next(upload.entry.round for upload in fleet.agents[0].uploads.values())
    held = fleet.federation.state.planner.state.held
    change = delta(echo(held, (fleet.recipe.seed, number, "dev-0")), held)
    after, _ = recall(folder, RUN, number + 1)
    wanted = add(change, part(before, "wanted/"))
    for name, values in part(after, "wanted/").items():
        assert values.tobytes() == wanted[name].tobytes()
