"""Error feedback on one device: what was sent and what is still kept add up to what was wanted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_agent.training.sending import encoded
from tests.edge_agent.boards import echo_spec, plan
from wire.frame import Kind, decode_frame
from wire.messages.update import UpdateHeader, decode_update
from wire.params import add, clipped

SPEC = echo_spec(200)
TOPK, LEVELS = {"stage": "topk", "share": 0.05}, {"stage": "levels", "levels": 3}
ZERO = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in SPEC.trainable}


def change(number, scale=1.0):
    """Returns a round's change in steps of 1/256, so that float32 adds it without rounding."""
    values = ((np.arange(SPEC.count) * (7 + 2 * number)) % 193 - 96) * scale / 256
    return {tensor.name: values.reshape(tensor.shape).astype(np.float32) for tensor in SPEC.trainable}


def asked(number, stages=(TOPK,), **changes):
    return replace(plan(SPEC), round=number, stages=stages, feedback=True, **changes)


def send(number, moved, recalled, **changes):
    """Returns what the coordinator decodes, and what the device remembers."""
    made = asked(number, **changes)
    header = UpdateHeader(made.run, number, "dev-1", made.base, made.kind, 1)
    data, memory = encoded(header, add(ZERO, moved), ZERO, made, SPEC, recalled=recalled)
    return decode_update(decode_frame(data, Kind.UPDATE), made, SPEC), memory


def total(parts):
    found = dict(ZERO)
    for part in parts:
        found = add(found, part)
    return found


def residual(memory):
    return {name: memory[f"residual/{name}"] for name in ZERO}


def same(one, other):
    return all(one[name].tobytes() == (other[name] + np.float32(0)).tobytes() for name in ZERO)


def test_sent_and_kept_are_what_was_wanted_exactly_over_many_rounds():
    recalled, sent, wanted = ({}, ""), [], []
    for number in range(25):
        wanted.append(change(number))
        found, memory = send(number, wanted[-1], recalled)
        assert 0 < sum(np.count_nonzero(values) for values in found.values()) <= 10 * len(ZERO)
        sent.append(found)
        recalled = memory, "accepted"
        assert same(add(total(sent), residual(memory)), total(wanted))
    assert any(np.abs(values).max() > 0 for values in residual(memory).values())


def test_through_levels_they_add_up_to_rounding():
    recalled, sent, wanted = ({}, ""), [], []
    for number in range(25):
        wanted.append(change(number))
        found, memory = send(number, wanted[-1], recalled, stages=(LEVELS,))
        sent.append(found)
        recalled = memory, "accepted"
    for name, value in add(total(sent), residual(memory)).items():
        np.testing.assert_allclose(value, total(wanted)[name], atol=1e-5)


def test_with_feedback_everything_arrives_in_the_end():
    """One change and then none: after enough rounds nothing is left, without feedback most never comes."""
    recalled, sent = ({}, ""), []
    for number in range(40):
        found, memory = send(number, change(0) if number == 0 else ZERO, recalled)
        sent.append(found)
        recalled = memory, "accepted"
    assert same(total(sent), change(0))
    assert not any(values.any() for values in residual(memory).values())


@pytest.mark.parametrize("fate", ["refused", "pending"])
def test_an_update_that_did_not_count_comes_back_whole(fate):
    _, first = send(0, change(0), ({}, ""))
    found, second = send(1, change(1), (first, fate))
    assert same(add(found, residual(second)), total([change(0), change(1)]))
    _, third = send(2, change(2), (second, fate))
    found, fourth = send(3, change(3), (third, "accepted"))
    kept = add(residual(third), change(3))
    assert same(add(found, residual(fourth)), kept)


def test_what_can_be_no_right_value_does_not_come_again():
    _, memory = send(0, change(0), ({}, ""))
    found, after = send(1, change(1), (memory, "spoiled"))
    assert same(add(found, residual(after)), change(1))


@pytest.mark.parametrize(
    ("stages", "grows"),
    [
        (({"stage": "levels", "levels": 2, "norm": "l2"},), True),
        (({"stage": "levels", "levels": 2},), False),
        (({"stage": "topk", "share": 0.05}, {"stage": "levels", "levels": 1}), False),
    ],
)
def test_why_some_stages_are_refused_with_feedback(stages, grows):
    """What is left out stays bounded, or grows beyond all bounds, as coordinator/recipes/combine.py says."""
    recalled, left = ({}, ""), []
    for number in range(60):
        _, memory = send(number, change(number), recalled, stages=stages)
        recalled = memory, "accepted"
        left.append(sum(float((values**2).sum()) for values in residual(memory).values()) ** 0.5)
    assert (left[-1] > 4 * left[20]) is grows


def test_an_update_that_counted_comes_back_less_what_was_sent():
    found, first = send(0, change(0), ({}, ""))
    again, second = send(1, ZERO, (first, "accepted"))
    assert same(add(add(found, again), residual(second)), change(0))
    for name, values in again.items():
        assert not (values != 0)[found[name] != 0].any()


def test_another_net_s_memory_is_left_alone():
    """A run has one net; what a memory lacks of it is no residual of this update."""
    name = next(iter(ZERO))
    _, memory = send(0, change(0), ({}, ""))
    memory = {key: values for key, values in memory.items() if not key.endswith(f"/{name}")}
    found, after = send(1, change(1), (memory, "accepted"))
    assert same(add(found, residual(after)), change(1))


def test_without_feedback_nothing_is_remembered_or_added():
    _, memory = send(0, change(0), ({}, ""))
    made = replace(asked(1), feedback=False)
    header = UpdateHeader(made.run, 1, "dev-1", made.base, made.kind, 1)
    data, kept = encoded(header, change(1), ZERO, made, SPEC, recalled=(memory, "accepted"))
    plain, _ = encoded(header, change(1), ZERO, made, SPEC, recalled=({}, ""))
    assert (kept, data) == ({}, plain)


@pytest.mark.parametrize("most", [1e-3, 0.5, 2.0])
def test_clipping_bounds_all_tensors_together(most):
    made = replace(asked(0, stages=()), feedback=False, clip=most)
    header = UpdateHeader(made.run, 0, "dev-1", made.base, made.kind, 1)
    data, _ = encoded(header, change(0), ZERO, made, SPEC, recalled=({}, ""))
    found = decode_update(decode_frame(data, Kind.UPDATE), made, SPEC)
    length = np.sqrt(sum(np.square(values, dtype=float).sum() for values in change(0).values()))
    sent = np.sqrt(sum(np.square(values, dtype=float).sum() for values in found.values()))
    assert length > 2.0
    assert sent == pytest.approx(most, rel=1e-6)
    for name, values in found.items():
        np.testing.assert_allclose(values, change(0)[name] * (most / length), rtol=1e-6)


def test_a_short_update_is_not_clipped():
    assert same(clipped(change(0), 1e6), change(0))
    assert same(clipped(ZERO, 0.0), ZERO)
    parts = {"a": np.float32([3.0]), "b": np.float32([[4.0]])}
    assert clipped(parts, 5.0)["a"].tobytes() == parts["a"].tobytes()
    assert clipped(parts, 2.5)["b"].tolist() == [[2.0]]
