"""Rounds read from made-up ledgers, wall times from made-up trials, and relays that pass on what they are given."""

from __future__ import annotations

import argparse
import socket
import threading

import pytest

from benchmarks.claims.claim import verdict
from benchmarks.claims.methods import TOGETHER
from benchmarks.claims.session import chosen, session
from benchmarks.links.bucket import Bucket
from benchmarks.links.relay import relays
from benchmarks.links.rounds import link_figures, round_parts
from benchmarks.links.session import result_of
from benchmarks.links.wall import rounds_to_accuracy, wall_ratio, wall_times

PHASES = ("selection", "configuration", "reporting", "aggregation", "evaluation", "published")


def phases(number, start_s, took_s):
    """A round whose phases begin at these seconds after its start."""
    return [
        {"event": "phase", "round": number, "phase": phase, "at": start_s + after_s}
        for phase, after_s in zip(PHASES, took_s, strict=False)
    ]


def accepted(number, device, at_s, **metrics):
    return {"event": "accepted", "round": number, "into": number, "device": device, "at": at_s, "metrics": metrics}


def traffic(number, up, down):
    return {"event": "traffic", "round": number, "up": up, "down": down, "at": 0.0}


LEDGER = [
    {"event": "run", "round": -1, "at": 90.0, "status": "open"},
    *phases(0, 100.0, (0, 1, 1, 60, 61, 64)),
    accepted(0, "a", 140.0, seconds=5.0),
    accepted(0, "b", 160.0, seconds=2.0),
    traffic(0, {"a": 100, "b": 300}, {"a": 10, "b": 30}),
    *phases(1, 164.0, (0, 0, 1, 75, 76, 76)),
    accepted(1, "b", 200.0, seconds=9.0),
    accepted(1, "a", 239.0, seconds=6.0),
    traffic(1, {"a": 100, "b": 100}, {"a": 400, "b": 400}),
    *phases(2, 240.0, (0, 0, 1, 65, 66, 86)),
    accepted(2, "a", 304.0, seconds=4.0),
    traffic(2, {"a": 120}, {"a": 420}),
    *phases(3, 330.0, (0, 0, 1)),  # still open
]


def test_parts_of_a_round_are_those_of_the_device_that_was_waited_for():
    first, second, third = round_parts(LEDGER)
    assert (first["round_s"], first["train_s"], first["rest_s"], first["last_device"]) == (61, 2, 59, "b")
    assert (second["round_s"], second["train_s"], second["rest_s"], second["last_device"]) == (76, 6, 70, "a")
    assert (third["round_s"], third["evaluation_s"]) == (66, 20)
    assert (first["up_bytes"], first["down_bytes"], first["updates"]) == (200, 20, 2)


def test_an_abandoned_round_is_none():
    given_up = [
        {"event": "phase", "round": 0, "phase": phase, "at": 1.0} for phase in ("selection", "reporting", "abandoned")
    ]
    assert round_parts(given_up) == []


def test_an_update_without_seconds_leaves_the_split_unknown_and_not_the_round():
    (parts,) = round_parts([*phases(0, 100.0, (0, 1, 1, 60, 61, 64)), accepted(0, "a", 150.0)])
    assert (parts["round_s"], parts["train_s"], parts["rest_s"]) == (61, None, None)
    assert parts["up_bytes"] is None
    found = link_figures([parts, parts])
    assert (found["round_s"], found["train_s"], found["rest_s"]) == (61, None, None)


def test_medians_leave_the_first_round_out():
    found = link_figures(round_parts(LEDGER))
    assert (found["counted_rounds"], found["round_s"], found["train_s"], found["rest_s"]) == (2, 71, 5, 66)
    assert (found["up_bytes"], found["down_bytes"]) == (110, 410)
    assert len(found["rounds"]) == 3


def test_one_round_alone_has_no_median():
    assert link_figures(round_parts(LEDGER)[:1])["round_s"] is None


def curve(*accuracies):
    return {"evaluated": [{"rounds": 5 * (at + 1), "accuracy": found} for at, found in enumerate(accuracies)]}


SEED = {
    "tg-leaf-fedavg": curve(0.70, 0.86, 0.87, 0.87, 0.87),
    "tg-leaf-combined": curve(0.50, 0.60, 0.70, 0.80, 0.84, 0.849, 0.85, 0.84),
    "tg-links-fedavg": {"round_s": 80.0, "rest_s": 70.0},
    "tg-links-combined": {"round_s": 16.0, "rest_s": 2.0},
}


def without(name):
    return {trial: figures for trial, figures in SEED.items() if trial != name}


def test_rounds_to_accuracy_are_those_of_the_first_reading_that_reaches_it():
    assert rounds_to_accuracy(SEED["tg-leaf-combined"], 84.5) == 30
    assert rounds_to_accuracy(SEED["tg-leaf-combined"], 86.0) is None


def test_wall_time_is_rounds_by_the_median_round():
    found = wall_times(SEED)
    assert found["goal_percent"] == pytest.approx(85.0)
    assert (found["fedavg_rounds"], found["fedavg_wall_s"], found["fedavg_wall_rest_s"]) == (10, 800, 700)
    assert (found["combined_rounds"], found["combined_wall_s"], found["combined_wall_rest_s"]) == (35, 560, 70)
    assert found["ratio"] == pytest.approx(800 / 560)
    assert found["ratio_without_training"] == pytest.approx(10)


@pytest.mark.parametrize("missing", SEED)
def test_without_a_trial_the_ratio_is_unknown(missing):
    found = wall_times(without(missing))
    assert found["ratio"] is None
    assert found["ratio_without_training"] is None


def test_never_reached_is_unknown():
    assert wall_ratio({**SEED, "tg-leaf-combined": curve(0.5, 0.6, 0.7)}) is None


def test_the_claim_and_the_benchmark_say_the_same():
    (claim,) = (claim for claim in TOGETHER.claims if claim.name == "tg-wall-time")
    assert verdict(claim, [SEED]).mean == result_of([SEED], []).figures["ratio"]
    assert not verdict(claim, [without("tg-leaf-combined")]).values


def test_result_needs_all_seeds_for_its_ratio():
    whole, part = result_of([SEED], []), result_of([SEED, without("tg-leaf-combined")], [])
    assert whole.ok
    assert whole.figures["fedavg_wall_s_computed"] == 800
    assert not part.ok
    assert (part.figures["seeds"], part.figures["ratio"], part.figures["fedavg_round_s"]) == (2, None, 80)
    assert not result_of([without("tg-links-combined")], []).figures["seeds"]


def test_slower_than_fedavg_is_a_requirement_missed():
    slow = {**SEED, "tg-links-combined": {"round_s": 40.0, "rest_s": 2.0}}
    assert not result_of([slow], []).ok


def test_the_simulator_leaves_real_trials_alone(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr("benchmarks.claims.session.run_pieces", lambda pieces, *_: ran.extend(pieces))
    asked = {"only": "tg-*", "seeds": 1, "store": tmp_path, "work": tmp_path, "set": [], "list": False}
    session(argparse.Namespace(**asked, long=True, fresh=False), TOGETHER)
    names = {piece.trial.name for piece in ran}
    assert "tg-leaf-combined" in names
    assert not {name for name in names if name.startswith("tg-links")}
    assert {trial.name for trial in chosen("tg-links-*", [], TOGETHER.trials)[1]} == {
        "tg-links-fedavg",
        "tg-links-combined",
    }


def test_bucket_lets_a_burst_pass_and_then_the_rate():
    bucket = Bucket(rate_bytes_s=1000.0, burst_bytes=500.0)
    assert bucket.wait_s(500, 10.0) == 0
    assert bucket.wait_s(1000, 10.0) == pytest.approx(1.0)
    assert bucket.wait_s(1000, 10.5) == pytest.approx(1.5)
    assert bucket.wait_s(500, 100.0) == 0  # silence saves up no more than a burst
    assert bucket.wait_s(250, 100.0) == pytest.approx(0.25)


def test_bucket_carries_no_more_than_its_rate_and_burst():
    bucket, now_s, sent = Bucket(rate_bytes_s=1000.0, burst_bytes=300.0), 0.0, 0
    for count in (100, 900, 50, 1500, 10, 700):
        now_s += bucket.wait_s(count, now_s)
        sent += count
        assert sent <= 300 + 1000 * now_s + 1e-6


def test_relays_pass_both_ways_each_on_its_own_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: [echo(server) for _ in range(2)])
        thread.start()
        with relays(2, server.getsockname()[1], 8e8, 8e8) as ports:
            assert len(set(ports)) == 2
            for port in ports:
                with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
                    client.sendall(b"x" * 100_000 + b".")
                    assert read_to_dot(client) == 100_001
        thread.join(10)


def echo(server):
    client, _ = server.accept()
    with client:
        client.settimeout(10)
        data = b""
        while not data.endswith(b"."):
            data += client.recv(65536)
        client.sendall(data)


def read_to_dot(client):
    data = b""
    while not data.endswith(b"."):
        data += client.recv(65536)
    return len(data)
