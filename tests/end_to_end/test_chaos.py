"""Nothing lost, nothing twice: whoever is killed, whenever it is, the run ends with the model of an undisturbed one.

A failure prints the recipe and the kills in order: `Kill` lines are at random moments (their seed is in the test),
`Point` lines at exact calls.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from coordinator.learning.checkpoint import load_state
from coordinator.recipe import load_recipe
from coordinator.rounds.phases import NEXT
from edge_agent.kept.standing import load_standing
from models.tasks import task
from tests.conftest import started
from tests.end_to_end.crash_main import CHILD, Point, fuse_path
from tests.end_to_end.fleet import COORDINATOR, fleet, undisturbed_model
from wire.spec import ModelSpec

BROKERS = ["mosquitto", "iotcore"]
AGENT = "edge_agent"
RECEIPT = re.compile(r"event=receipt .*digest=(\w+) verdict=(\w+)")


def around(target, *nths, committed=False):
    """Returns the points before and after the nth calls of a function."""
    whens = ("before", "after", "committed") if committed else ("before", "after")
    return [Point(target, when, nth) for nth in nths or (1,) for when in whens]


# A round of a coordinator that has just begun is in some phase, and its next five moves are all there are.
MOVES = around("coordinator.rounds.conductor:advance", *range(1, len(NEXT) - 1), committed=True)
COORDINATOR_POINTS = [
    Point("coordinator.service:Home.new_run", "before"),
    Point("coordinator.service:Home.new_run", "after"),
    Point("wire.links.mqtt:MqttTransport.receive", "before"),
    *MOVES,
    *around("coordinator.rounds.conductor:begin_round", committed=True),
    *around("coordinator.post:Post._greet"),
    *around("coordinator.run_state:RunState.invite", 2),
    *around("coordinator.rounds.intake:Assembly.finish"),
    *around("coordinator.desk:Desk._judge"),
    *around("coordinator.desk:move_whole", 2),
    *around("coordinator.rounds.book:Book.accept", 2, committed=True),
    *around("coordinator.desk:Desk._answer", 3),
    *around("coordinator.rounds.planner:Mean.fold", 2),
    *around("coordinator.rounds.planner:write_whole"),
    *around("coordinator.rounds.planner:save_state"),
    *around("wire.pieces.assembly:os.fsync", 2, 3),
    *around("wire.pieces.assembly:_sync_folder", 2),
    *around("coordinator.rounds.planner:Planner.tidy"),
    *around("coordinator.library:Library.keep_only"),
]
# Only once in a run: at its very end.
LAST_POINTS = [
    Point("coordinator.rounds.conductor:Conductor._end", "before"),
    Point("coordinator.rounds.conductor:Conductor._end", "after"),
    Point("coordinator.service:write_report", "before"),
    Point("wire.pieces.assembly:os.fsync", "before", 2),
]
AGENT_POINTS = [
    *around("edge_agent.agent:save_standing"),
    *around("edge_agent.agent:Agent._greet"),
    *around("edge_agent.agent:Agent._invite"),
    *around("edge_agent.fetch:Fetch.take"),
    *around("edge_agent.fetch:Assembly.finish"),
    *around("edge_agent.work:Work.start"),
    *around("edge_agent.work:Work.finished"),
    *around("edge_agent.agent:Agent._carry"),
    *around("edge_agent.work:Work.tidy"),
    *around("edge_agent.upload:Upload.send"),
    *around("edge_agent.upload:Upload.sent"),
    *around("edge_agent.agent:Agent._settle"),
    *around("edge_agent.agent:settle_memory"),
    *around("edge_agent.agent:save_standing", 2),
    *around("edge_agent.agent:remove"),
]
CHILD_POINTS = [
    *around("edge_agent.training.job:run_job"),
    *around("edge_agent.training.job:encoded"),
    *around("edge_agent.training.job:write_whole", 1, 2),
    *around("wire.pieces.assembly:os.fsync", 1, 2),
]
TRAINING_POINTS = [
    *around("edge_agent.training.trainer:_step", 7, 31),
    *around("edge_agent.training.trainer:dump"),
]


@dataclass(frozen=True)
class Kill:
    """Kill `victim` when the rounds have made `step` moves and `pause_s` has passed; bring it back `away_s` later."""

    step: int
    victim: str
    pause_s: float
    away_s: float


def random_kills(recipe, seed, count, broker_share=0.1):
    """Returns kills spread over a run; the last of them are long before its end."""
    dice, last = random.Random(seed), int(0.95 * (len(NEXT) - 1) * recipe.rounds)
    agents = [f"dev-{at}" for at in range(recipe.devices.goal)]
    parents = agents if task(recipe.task).metric is None else [COORDINATOR, *agents]
    victims = [COORDINATOR, *agents, *(f"child of {parent}" for parent in parents)]
    kills = []
    for step in sorted(dice.randrange(1, last) for _ in range(count)):
        victim = "broker" if dice.random() < broker_share else dice.choice(victims)
        kills.append(Kill(step, victim, dice.uniform(0, 0.05), dice.choice([0.0, dice.uniform(0, 0.4)])))
    return kills


def play(running, kills, longest_s):
    """Carries the kills out, in order; returns those that found their victim alive."""
    done, ends_s = [], time.monotonic() + longest_s
    for kill in kills:
        while running.steps() < kill.step and not running.over:
            running.revive()
            assert time.monotonic() < ends_s, f"not at {kill}\n{running.tails()}"
            time.sleep(0.01)
        time.sleep(kill.pause_s)
        if strike(running, kill):
            done.append(kill)
    running.finish(max(1.0, ends_s - time.monotonic()))
    return done


def strike(running, kill):
    if running.over:
        return False
    if kill.victim.startswith("child of "):
        return running.kill_child(kill.victim.removeprefix("child of "))
    running.kill(kill.victim)
    if running.over:
        return False  # it had just ended by itself
    time.sleep(kill.away_s)
    running.restart(kill.victim)
    return True


def burnt(running):
    """Returns the exact places where a process died, and those where none did."""
    planned = [(name, module, p) for name, lists in running.points.items() for module in lists for p in lists[module]]
    hit = [entry for entry in planned if fuse_path(running.fuses / entry[0], *entry[1:]).exists()]
    return hit, [entry for entry in planned if entry not in hit]


def check_books(running, model):
    """Every update that was ever receipted counts exactly once or is refused, and the run gave the right model."""
    ledger = running.ledger()
    ended = [line for line in ledger if line["event"] == "run" and line["status"] != "open"]
    assert [line["status"] for line in ended] == ["done"]
    reduced = [line for line in ledger if line["event"] == "phase" and line["phase"] == "evaluation"]
    folded = [(line["round"], update) for line in reduced for update in line["updates"]]
    rounds = Counter(number for number, _ in folded)
    assert rounds == dict.fromkeys(range(running.recipe.rounds), len(running.devices))
    assert len({(update["round"], update["device"]) for _, update in folded}) == len(folded)
    counted = Counter(update["digest"] for _, update in folded)
    assert set(counted.values()) == {1}
    assert set(counted) == {line["digest"] for line in ledger if line["event"] == "accepted"}
    with running.books() as database:
        refused = {row["digest"] for row in database.rows("SELECT digest FROM refused")}
        assert database.row("PRAGMA integrity_check")[0] == "ok"
    assert not refused & set(counted)
    check_receipts(running, set(counted), refused)
    assert ended[0]["model"] == model


def check_receipts(running, counted, refused):
    """What the devices were told is what the books say."""
    told = {"accepted": {d[:12] for d in counted}, "refused": {d[:12] for d in refused}}
    for device in running.devices:
        for digest, verdict in RECEIPT.findall((running.logs / f"{device}.log").read_text()):
            assert digest in told[verdict], (device, digest, verdict)
        kept = {path.name.rsplit(".", 2)[1][:12] for path in (running.folder / device / "outbox").glob("*.update")}
        assert kept <= last_round(running), f"{device} was never told of {kept - last_round(running)}"


def last_round(running):
    """Returns the updates whose receipts may still be under way when the coordinator ends."""
    last = running.recipe.rounds - 1
    return {line["digest"][:12] for line in running.ledger() if line["event"] == "accepted" and line["round"] == last}


def check_folders(running):
    """No file holds anything else than its name says."""
    run = running.home / "runs" / running.run
    spec = ModelSpec.from_json(json.loads((run / "spec.json").read_bytes()))
    for path in (run / "checkpoints").glob("*.state"):
        load_state(path, spec)
    whole = [path for path in (run / "blobs").iterdir() if not path.name.startswith(".")]
    figures = json.loads((run / "report.json").read_text())
    assert (figures["status"], figures["rounds"]) == ("done", running.recipe.rounds)
    assert (run / "ledger.jsonl").read_text().count("\n") == len(running.ledger())
    for device in running.devices:
        folder = running.folder / device
        assert not list(folder.rglob("*.damaged"))
        assert load_standing(folder).session >= 1
        whole += [path for path in (folder / "store").iterdir() if len(path.name) == 64]
        for path in (folder / "outbox").glob("*.update"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name.rsplit(".", 2)[1], path
    assert not [path for path in whole if hashlib.sha256(path.read_bytes()).hexdigest() != path.name]


def chaos(kind, folder, recipe, kills, points, at_least, longest_s):
    """Plays the kills, checks what is left, and says on any failure how to have it again."""
    started(kind, folder / "probe").stop()
    model = undisturbed_model(folder / "undisturbed", recipe)
    with fleet(kind, folder / "fleet", recipe, points) as running:
        try:
            done = play(running, kills, longest_s)
            hit, missed = burnt(running)
            assert not missed
            assert len(done) + len(hit) >= at_least, f"{len(done)} random kills, {len(hit)} exact ones"
            check_books(running, model)
            check_folders(running)
        except BaseException:
            print(
                f"broker {kind}, {recipe}", *kills, *(f"{name}: {m} {p}" for name, m, p in burnt(running)[0]), sep="\n"
            )
            print(running.tails())
            raise


def echo(rounds, *settings):
    return load_recipe("echo", ["devices.goal=3", f"rounds={rounds}", 'model="vector-2000"', *settings])


def digits(name, rounds):
    return load_recipe(name, ["devices.goal=2", f"rounds={rounds}"])


def share(at, of):
    """Returns every so many of the exact places, and all that come at the end of a run."""
    return {
        COORDINATOR: {COORDINATOR: [*COORDINATOR_POINTS[at::of], *LAST_POINTS]},
        "dev-0": {AGENT: AGENT_POINTS[at::of]},
        "dev-1": {CHILD: CHILD_POINTS[at::of]},
    }


def test_a_child_whose_parent_is_gone_before_it_begins():
    """It must not do the job that lies in its pipe: the agent was started again and has the job done anew."""
    stranger = str(os.getppid())
    assert (
        subprocess.run([sys.executable, "-m", CHILD, stranger], stdin=subprocess.DEVNULL, check=False).returncode == 1
    )


@pytest.mark.parametrize(("at", "kind"), list(enumerate(BROKERS)))
def test_killed_at_every_transition(at, kind, tmp_path):
    """Each broker has every other place; together they have all."""
    chaos(kind, tmp_path, echo(40), [], share(at, len(BROKERS)), 45, 240.0)


@pytest.mark.parametrize("kind", BROKERS)
def test_killed_at_random_moments(kind, tmp_path):
    recipe = echo(30)
    chaos(kind, tmp_path, recipe, random_kills(recipe, 1, 12), {}, 10, 240.0)


def test_killed_while_training(tmp_path):
    points = {"dev-0": {CHILD: TRAINING_POINTS[::4]}, "dev-1": {CHILD: TRAINING_POINTS[3::4]}}
    chaos("iotcore", tmp_path, digits("fedavg", 2), [], points, 3, 240.0)


@pytest.mark.long
@pytest.mark.parametrize("kind", BROKERS)
@pytest.mark.parametrize("seed", [2, 3])
def test_killed_at_every_transition_and_in_between(seed, kind, tmp_path):
    recipe = echo(80, f"seed={seed}")
    chaos(kind, tmp_path, recipe, random_kills(recipe, seed, 40), share(0, 1), 125, 900.0)


@pytest.mark.long
@pytest.mark.parametrize("name", ["fedavg", "fedavg-4bit"])
@pytest.mark.parametrize("kind", BROKERS)
def test_killed_while_training_and_in_between(kind, name, tmp_path):
    recipe = digits(name, 8)
    points = {"dev-0": {CHILD: TRAINING_POINTS}, COORDINATOR: {COORDINATOR: LAST_POINTS}}
    chaos(kind, tmp_path, recipe, random_kills(recipe, 4, 16), points, 20, 600.0)


@pytest.mark.long
@pytest.mark.parametrize("kind", BROKERS)
def test_a_broker_that_dies_again_and_again(kind, tmp_path):
    recipe = echo(60)
    chaos(kind, tmp_path, recipe, random_kills(recipe, 5, 20, broker_share=0.7), {}, 18, 900.0)
