"""A trained model on its way over a real broker: every board takes the file that it can afford."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from coordinator.broker import start_broker
from tests.conftest import started
from tests.end_to_end.rollout.model_board import (
    FLEET,
    STAGE_S,
    Board,
    call,
    check_answers,
    export,
    report_of,
    roll_out,
    train,
    with_accuracies,
)
from tests.waiting import settled
from wire.pieces.chunks import decode_chunk
from wire.topics import Topics

BROKERS = ["mosquitto", "iotcore"]
HEALTH_S = 0.5


def fitting(variants, policy):
    """Returns the variants that a policy allows, the one to take first."""
    profiles = policy.get("profiles") or {one["profile"] for one in variants}
    most_bytes = policy.get("max_bytes") or max(one["bytes"] for one in variants)
    found = [
        one
        for one in variants
        if one["profile"] in profiles
        and one["bytes"] <= most_bytes
        and one["accuracy"] >= policy.get("min_accuracy", 0.0)
    ]
    return sorted(found, key=lambda one: (-one["accuracy"], one["bytes"]))


def policies(variants):
    """Returns what four boards can afford, each by other limits."""
    size = {one["name"]: one["bytes"] for one in variants}
    small = {"max_bytes": size["float-4"]}
    best = fitting(variants, small)[0]
    return {
        "dev-0": {},
        "dev-1": {"profiles": ["int8"]},
        "dev-2": {**small, "min_accuracy": best["accuracy"]},
        "dev-3": {"profiles": ["int8"], "max_bytes": size["int8-2"]},
    }


@pytest.mark.parametrize("kind", BROKERS)
def test_every_board_takes_what_it_can_afford(kind, ladder, tmp_path):
    started(kind, tmp_path / "probe").stop()
    variants = report_of(ladder)["variants"]
    boards = policies(variants)
    home = tmp_path / "home"
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(kind, tmp_path / "broker"))
        for name, policy in boards.items():
            board = Board(tmp_path, name, broker.url, home)
            stack.callback(board.stop)
            board.start(health_s=HEALTH_S, **policy)
            boards[name] = board, policy
        words = ["--home", str(home), "--fleet", FLEET, "--broker", broker.url, "--devices", ",".join(boards)]
        start = call("coordinator", "rollout", "start", str(ladder), *words, "--stage-s", str(STAGE_S), "--json")
        facts = json.loads(start.stdout)
        assert (facts["status"], facts["stage"], facts["healthy"]) == ("done", "all", len(boards))
        rows = {row["device"]: row for row in facts["devices"]}
        assert [row["stage"] for row in facts["devices"]] == ["canary", "third", "all", "all"]
        for name, (board, policy) in boards.items():
            check_choice(rows[name], variants, policy)
            check_answers(board, ladder, rows[name]["variant"])
        assert len({row["bits"] for row in rows.values()}) > 1
        assert sum(facts["bits"].values()) == len(boards)
        words = ["infer", str(tmp_path / "golden.npy"), "--json", "--config"]  # as a person would: a process of its own
        board, _ = boards["dev-0"]
        assert json.loads(call("edge_agent", *words, str(board.config)).stdout) == board.says(*words[:2])


@pytest.mark.long
def test_from_4_to_8_bits_of_a_bundle_only_the_rest_is_fetched(tmp_path, client):
    started("mosquitto", tmp_path / "probe").stop()
    train(tmp_path, "mlp-256-128", rounds=2)  # wide enough that a bundle pays
    nested = export(tmp_path, tmp_path / "nested", "8,4", "--profile", "float", "--nested")
    entries = with_accuracies(nested, {"float-4": 0.8, "float-8": 0.9})  # two rounds may leave either ahead
    (bundle,) = {one["bundle"] for one in entries.values()}
    held = 0
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker("mosquitto", tmp_path / "broker"))
        watcher = client(broker, "watcher")
        watcher.subscribe(*(Topics(FLEET).blob(one) for one in (bundle, *(one["sha256"] for one in entries.values()))))
        board = Board(tmp_path, "dev", broker.url, tmp_path / "home")
        stack.callback(board.stop)
        for version, wanted in enumerate(("float-4", "float-8"), 1):
            board.start(health_s=HEALTH_S, max_bytes=entries[wanted]["bytes"])
            rollout = roll_out(board.home, broker.url, nested, board.name)
            report = rollout.members[0].report
            assert (rollout.status, report.healthy, report.variant) == ("done", version, wanted), board.log
            check_answers(board, nested, wanted, version)
            sent = [decode_chunk(message.payload, 1 << 20) for message in settled(watcher)]
            assert {chunk.digest for chunk in sent} == {bundle}, board.log
            fetched = {at for chunk in sent for at in range(chunk.offset, chunk.offset + len(chunk.data))}
            assert fetched == set(range(held, entries[wanted]["prefix"])), board.log
            held = entries[wanted]["prefix"]
            board.stop()


def check_choice(row, variants, policy):
    """The roll-out names the variant that the rule names, and says what it went by."""
    able = fitting(variants, policy)
    best = able[0]
    assert (row["outcome"], row["phase"], row["code"]) == ("healthy", "healthy", "")
    assert row["staged"] == row["active"] == row["healthy"] == 1
    assert (row["variant"], row["bits"]) == (best["name"], best["bits"])
    assert row["why"].startswith(f"best of {len(able)} of {len(variants)} variants that fit")
    assert f"accuracy {best['accuracy']:.4f} by the manifest, {best['bytes']} bytes" in row["why"]
    assert {one["variant"] for one in row["found"] if one["fits"]} == {one["name"] for one in able}
    assert {one["variant"] for one in row["found"]} == {one["name"] for one in variants}
