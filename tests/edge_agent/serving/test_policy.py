from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.config import ModelConfig
from edge_agent.serving.policy import Finding, choose, release
from edge_agent.serving.trial.refusing import refused
from wire.messages.manifest import Measured, Variant

import pytest  # isort: skip


def variant(bits=8, accuracy=0.9, size=1000, memory=None, profile="int8", runtime="1.16"):
    return Variant(
        name=f"{profile}-{bits}",
        profile=profile,
        bits=bits,
        digest="0" * 64,
        size=size,
        operators=("Gemm",),
        min_runtime=runtime,
        tolerance=0.1,
        measured=Measured("lab", accuracy=accuracy, examples=10, memory_bytes=memory),
    )


LADDER = (variant(8, 0.93, 8000), variant(6, 0.93, 6000), variant(4, 0.91, 4000), variant(2, 0.60, 2000))


def pick(variants=LADDER, findings=None, free=None, runtime="1.20", **limits):
    return choose(variants, findings or {}, ModelConfig(**limits), free, runtime)


def chosen(*args, **words):
    found = pick(*args, **words).variant
    return found.name if found else None


def test_the_best_accuracy_and_of_equals_the_smaller():
    choice = pick()
    assert (choice.variant.name, choice.probed) == ("int8-6", False)
    assert choice.why == (
        "best of 4 of 4 variants that fit, none of them tried here: accuracy 0.9300 by the manifest, 6000 bytes"
    )


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"max_bytes": 5000}, "int8-4"),
        ({"max_bytes": 100}, None),
        ({"min_accuracy": 0.92}, "int8-6"),
        ({"min_accuracy": 0.95}, None),
        ({"profiles": ("float",)}, None),
        ({"max_size_mb": 0.005}, "int8-4"),
        ({"max_latency_ms": 0.001}, "int8-6"),
    ],
)
def test_limits_that_the_manifest_can_answer(limits, name):
    assert chosen(**limits) == name


BAD = {"int8-8": Finding(accuracy=0.11, examples=500)}


@pytest.mark.parametrize(
    ("findings", "limits", "poor"),
    [
        (BAD, {"min_accuracy": 0.95}, True),  # the other variants are out by the manifest
        ({}, {"min_accuracy": 0.95}, False),
        (BAD, {"min_accuracy": 0.95, "max_bytes": 7000}, False),  # it would not fit anyway
        (BAD, {"min_accuracy": 0.95, "profiles": ("float",)}, False),
        (BAD, {"min_accuracy": 0.92}, False),  # another is taken
        ({"int8-8": Finding(code="E-MODEL-NAN", reason="nan")}, {"min_accuracy": 0.95}, False),
    ],
)
def test_what_does_badly_on_the_devices_own_examples_is_told_from_what_does_not_fit(findings, limits, poor):
    choice = pick(findings=findings, **limits)
    assert (choice.poor, choice.variant is None) == (poor, limits["min_accuracy"] == 0.95)


def test_what_does_not_fit_says_why():
    found = {one.variant: one for one in pick(max_bytes=5000, min_accuracy=0.7).found}
    assert found["int8-8"].why == "the file has 8000 bytes, at most 5000"
    assert found["int8-2"].why == "accuracy 0.6000 by the manifest, at least 0.7000"
    assert (found["int8-4"].fits, found["int8-4"].why) == (True, "chosen; not tried here")


def test_memory_by_the_manifest_and_then_by_the_probe():
    ladder = (variant(8, 0.9, memory=500), variant(4, 0.8, memory=100))
    assert chosen(ladder, free=200) == "int8-4"
    assert chosen(ladder, free=None) == "int8-8"
    assert chosen(ladder, {"int8-4": Finding(memory_bytes=300)}, free=200) is None
    assert chosen(ladder, {"int8-8": Finding(memory_bytes=50)}, free=200) == "int8-8"


def test_going_down_when_the_probe_says_too_slow():
    slow = {"int8-6": Finding(latency_ms=9.0)}
    assert pick(findings=slow, max_latency_ms=5).variant.name == "int8-8"
    slow["int8-8"] = Finding(latency_ms=8.0)
    choice = pick(findings=slow, max_latency_ms=5)
    assert (choice.variant.name, choice.probed) == ("int8-4", False)
    slow["int8-4"] = Finding(latency_ms=4.0)
    choice = pick(findings=slow, max_latency_ms=5)
    assert choice.probed
    assert choice.why.endswith("4000 bytes, 4 ms here")


def test_no_meter_is_no_refusal():
    assert chosen(findings={"int8-6": Finding(latency_ms=1.0)}, max_mj=0.1) == "int8-6"
    assert chosen(findings={"int8-6": Finding(energy_mj=1.0)}, max_mj=0.1) == "int8-8"


def test_the_devices_own_accuracy_goes_before_the_manifests():
    own = {"int8-6": Finding(accuracy=0.5, examples=40), "int8-8": Finding(accuracy=0.7, examples=40)}
    assert chosen(findings=own) == "int8-4"
    own["int8-4"] = Finding(accuracy=0.65, examples=40)
    choice = pick(findings=own)
    assert choice.variant.name == "int8-8"
    assert "accuracy 0.7000 on 40 examples of this device" in choice.why


def test_unknown_accuracy_is_not_zero():
    ladder = (variant(8, None, 900), variant(4, None, 500))
    choice = pick(ladder, min_accuracy=0.9)
    assert choice.variant.name == "int8-8"
    assert "accuracy unknown, most bits" in choice.why
    assert chosen((*ladder, variant(2, 0.1))) == "int8-2"


def test_what_failed_its_probe_does_not_fit():
    failed = {one.name: Finding(code="E-MODEL-NAN", reason="2 outputs are not finite") for one in LADDER}
    choice = pick(findings=failed)
    assert choice.variant is None
    assert choice.why.startswith("int8-8: E-MODEL-NAN: 2 outputs are not finite; int8-6: ")


def test_an_older_runtime():
    assert chosen((variant(8, 0.9, runtime="1.25"), variant(4, 0.8)), runtime="1.23.2") == "int8-4"
    assert [release(text) for text in ("1.16.3", "1.9", "2", "1.20.0rc1", "x")] == [
        (1, 16, 3),
        (1, 9),
        (2,),
        (1, 20),
        (),
    ]


FIGURE = st.none() | st.floats(0, 100)
FINDINGS = st.dictionaries(
    st.sampled_from([one.name for one in LADDER]),
    st.builds(
        Finding, latency_ms=FIGURE, accuracy=st.none() | st.floats(0, 1), code=st.sampled_from(["", "", "E-MODEL-LOAD"])
    ),
)


@given(FINDINGS, st.floats(0, 100), st.integers(0, 9000), st.floats(0, 1))
def test_a_choice_never_breaks_a_limit_that_is_known(findings, latency, size, accuracy):
    choice = pick(findings=findings, max_latency_ms=latency, max_bytes=size, min_accuracy=accuracy)
    assert [one.variant for one in choice.found] == [one.name for one in LADDER]
    if choice.variant is None:
        assert not any(one.fits for one in choice.found)
        return
    found = findings.get(choice.variant.name, Finding())
    assert not found.code
    assert not (latency and found.latency_ms is not None and found.latency_ms > latency)
    assert not (size and choice.variant.size > size)
    assert choice.probed == (choice.variant.name in findings)


@pytest.mark.parametrize(
    ("free", "limits", "code"),
    [
        (10, {}, "E-MEMORY"),
        (10, {"max_bytes": 100}, "E-MODEL-POLICY"),
        (None, {"max_bytes": 100}, "E-MODEL-POLICY"),
        (10, {"min_accuracy": 0.95}, "E-MODEL-POLICY"),
    ],
)
def test_where_only_memory_is_short_the_refusal_says_so_for_it_goes_by(free, limits, code):
    ladder = (variant(8, 0.93, 8000, memory=2000), variant(4, 0.91, 4000, memory=1000))
    assert refused(pick(ladder, free=free, **limits), {}).code == code


def test_what_was_measured_here_may_be_short_of_memory_too():
    choice = pick(LADDER[:1], {"int8-8": Finding(memory_bytes=5000)}, free=4000)
    assert (choice.variant, refused(choice, {}).code) == (None, "E-MEMORY")


def test_what_serves_already_needs_no_free_memory():
    best, small = (replace(variant(bits, 0.9 + bits / 100, memory=5000), digest=f"{bits}" * 64) for bits in (8, 4))
    assert choose((best, small), {}, ModelConfig(), 100, "1.20", serving=best.digest).variant == best
    assert choose((best, small), {}, ModelConfig(), 100, "1.20", serving=small.digest).variant == small
    assert choose((best, small), {}, ModelConfig(max_bytes=1), 100, "1.20", serving=best.digest).variant is None
