"""Whole installations over a broker in memory, with real probes: what is taken, what is refused, what serves."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from edge_agent.config import ModelConfig
from edge_agent.serving.probe import CHILD
from tests.edge_agent.serving.stage.files import NOW_S, file_bytes, outputs_of, with_external_data, with_nan
from tests.edge_agent.serving.stage.sides import FAILING
from wire.frame import Kind, encode_frame
from wire.messages.manifest import Measured


def test_from_offer_to_healthy_as_three_facts(side):
    one = side()
    one.serving.probe.module = CHILD
    report = one.bring(one.publisher.manifest(1, {"float-32": file_bytes()}))
    assert (report.staged, report.active, report.healthy) == (1, 1, 1)
    assert (report.variant, report.bits, report.code) == ("float-32", 32.0, "")
    assert report.why.startswith(
        "best of 1 of 1 variants that fit, 1 of them tried here: accuracy 0.9000 by the manifest"
    )
    (found,) = report.found
    assert (found.fits, found.why) == (True, "chosen")
    assert found.latency_ms > 0
    seen = [(r.phase, r.staged, r.active, r.healthy) for r in one.reports]
    assert ("staged", 1, 0, 0) in seen
    assert ("active", 1, 1, 0) in seen
    assert one.live == 1


def test_a_device_that_was_never_offered_a_model_says_and_makes_nothing(side):
    one = side()
    for _ in range(20):
        one.turn()
    assert not one.reports
    assert not one.models.exists()


def manifests(publisher):
    """Yields each wrong offer: the code that it must end with, the manifest, and its bytes if they are special."""
    good, broken = file_bytes(), file_bytes(7)
    right = {"float-32": outputs_of(good)}
    yield "E-MODEL-GOLDEN", publisher.manifest(2, {"float-32": broken}, answers=right), None
    yield "E-MODEL-NAN", publisher.manifest(2, {"float-32": with_nan()}, answers=right), None
    yield "E-MODEL-GRAPH", publisher.manifest(2, {"float-32": with_external_data()}, answers=right), None
    yield "E-MODEL-GRAPH", publisher.manifest(2, {"float-32": good[:-60]}, answers=right), None
    unsigned = publisher.manifest(2, {"float-32": good})
    yield "E-SIGNATURE", unsigned, encode_frame(Kind.MANIFEST, asdict(unsigned))
    yield "E-VERSION-FLOOR", publisher.manifest(1, {"float-32": good}, content="1" * 64), None
    yield "E-FLEET", publisher.manifest(2, {"float-32": good}, fleet="other"), None
    yield "E-MODEL-EXPIRED", publisher.manifest(2, {"float-32": good}, expires_s=NOW_S - 5), None
    yield "E-MODEL-KEY", publisher.manifest(2, {"float-32": good}, key="0" * 16), None
    yield "E-FRAME", publisher.manifest(2, {"float-32": good}), b"no frame"
    small = publisher.manifest(2, {"float-32": good}, edit=lambda v: replace(v, min_runtime="99.0"))
    yield "E-MODEL-POLICY", small, None


CODES = [
    "E-MODEL-GOLDEN",
    "E-MODEL-NAN",
    "E-MODEL-GRAPH",
    "E-MODEL-GRAPH",
    "E-SIGNATURE",
    "E-VERSION-FLOOR",
    "E-FLEET",
    "E-MODEL-EXPIRED",
    "E-MODEL-KEY",
    "E-FRAME",
    "E-MODEL-POLICY",
]


@pytest.mark.parametrize("number", range(len(CODES)))
def test_what_is_wrong_is_refused_with_its_code_while_the_last_good_model_serves(one, number):
    code, manifest, data = list(manifests(one.publisher))[number]
    assert code == CODES[number]
    report = one.bring(manifest, data)
    assert (report.phase, report.code) == ("refused", code)
    assert report.reason
    assert (report.active, report.healthy, one.live) == (1, 1, 1)
    better = one.publisher.manifest(9, {"float-32": file_bytes(3)})
    assert one.bring(better).phase == "healthy"
    assert one.live == 9


@pytest.mark.parametrize(("death", "code"), [("SIGILL", "E-MODEL-CRASH"), ("SIGSEGV", "E-MODEL-CRASH")])
def test_what_ends_the_runtime_ends_neither_the_agent_nor_the_old_model(one, monkeypatch, death, code):
    monkeypatch.setenv("BITFLEET_TEST_DIES", "float-32")
    monkeypatch.setenv("BITFLEET_TEST_DEATH", death)
    one.serving.probe.module = FAILING
    report = one.bring(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    assert (report.phase, report.code, one.live) == ("refused", code, 1)
    assert death in report.reason


def test_too_slow_is_a_matter_of_policy(side, monkeypatch):
    monkeypatch.setenv("BITFLEET_TEST_DIES", "float-32")
    monkeypatch.setenv("BITFLEET_TEST_DEATH", "slow")
    one = side(model=ModelConfig(health_s=0.0, max_latency_ms=1000.0))
    one.bring(one.publisher.manifest(1, {"int8-8": file_bytes()}))
    one.serving.probe.module = FAILING
    report = one.bring(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    assert (report.phase, report.code, one.live) == ("refused", "E-MODEL-POLICY", 1)
    assert "it takes 1000000 ms, at most 1000" in report.reason
    ladder = {"float-32": file_bytes(3), "int8-8": file_bytes(3)}
    report = one.bring(one.publisher.manifest(3, ladder))
    assert (report.phase, report.variant, one.live) == ("healthy", "int8-8", 3)


def test_a_device_without_keys_refuses_and_says_what_to_do(side):
    one = side(model_keys=())
    report = one.bring(one.publisher.manifest(1, {"float-32": file_bytes()}))
    assert (report.phase, report.code, report.active) == ("refused", "E-MODEL-KEY", 0)
    assert "set model_keys" in report.reason


def test_only_what_may_fit_is_fetched(side):
    one = side(model=ModelConfig(health_s=0.0, max_bytes=3000))
    files = {"float-32": file_bytes(width=100), "int8-8": file_bytes(2), "int8-4": file_bytes(3)}
    best = {"float-32": 0.99, "int8-8": 0.95, "int8-4": 0.9}
    made = one.publisher.manifest(
        1, files, edit=lambda v: replace(v, measured=Measured("lab", accuracy=best[v.name], examples=9))
    )
    report = one.bring(made)
    assert report.variant == "int8-8"
    digests = {variant.name: variant.digest for variant in made.variants}
    assert {name for name, digest in digests.items() if digest in one.asked} == {"int8-8"}
    assert {found.variant: found.fits for found in report.found} == {"float-32": False, "int8-8": True, "int8-4": True}


def test_what_needs_a_newer_runtime_is_not_fetched(side):
    one = side()
    files = {"int8-4": file_bytes(2), "int8-2": file_bytes(3)}
    needs = {"int8-4": "99.1", "int8-2": "1.16"}
    made = one.publisher.manifest(1, files, edit=lambda v: replace(v, min_runtime=needs[v.name]))
    report = one.bring(made)
    assert (report.phase, report.variant) == ("healthy", "int8-2")
    assert "needs onnxruntime 99.1, here is 1." in {found.variant: found.why for found in report.found}["int8-4"]
    alone = one.publisher.manifest(2, {"int8-4": file_bytes(4)}, edit=lambda v: replace(v, min_runtime="99.1"))
    report = one.bring(alone)
    assert (report.phase, report.code, one.live) == ("refused", "E-MODEL-POLICY", 1)
    assert not {made.variants[0].digest, alone.variants[0].digest} & set(one.asked)


def test_one_broken_variant_does_not_cost_the_device_the_others(side):
    one = side()
    good = file_bytes(2)
    files = {"float-32": file_bytes(7), "int8-8": good}
    answers = {"float-32": outputs_of(file_bytes()), "int8-8": outputs_of(good)}
    best = {"float-32": 0.99, "int8-8": 0.9}
    report = one.bring(
        one.publisher.manifest(
            1, files, answers=answers, edit=lambda v: replace(v, measured=Measured("lab", accuracy=best[v.name]))
        )
    )
    assert (report.phase, report.variant) == ("healthy", "int8-8")
    assert "E-MODEL-GOLDEN" in {found.variant: found.why for found in report.found}["float-32"]
