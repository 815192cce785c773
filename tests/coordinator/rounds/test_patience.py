"""How long a round waits for its figures: a child that hangs is given up, a slow one has time enough in the end."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from coordinator.rounds.phases import Phase
from tests.coordinator.rounds.test_conductor import answer, restart, wait


@dataclass
class Stuck:
    """An evaluator whose child never answers, or after `answers_s` on the room's clock."""

    room: object = None
    takes_s: float = float("inf")
    ends_s: float = 0.0
    stopped: int = 0
    wake: tuple[int, ...] = ()

    def start(self, question):
        self.ends_s = self.room.clock_s + self.takes_s

    def poll(self):
        return {"accuracy": 0.5} if self.room.clock_s >= self.ends_s else None

    def stop(self):
        self.stopped += 1


@pytest.fixture
def measured(room, monkeypatch):
    """As `room`, with an evaluator that takes its time, though the task has nothing to measure."""

    def make(takes_s):
        monkeypatch.setattr("coordinator.rounds.conductor.task", lambda _: type("Task", (), {"metric": "accuracy"}))
        made = room("rounds=20", devices=("dev-0",))
        restart(made, evaluator := Stuck(made, takes_s))
        return made, evaluator

    return make


def test_an_evaluation_that_hangs_is_given_up(measured):
    made, evaluator = measured(float("inf"))
    answer(made, "dev-0")
    assert made.state.row.phase is Phase.EVALUATION
    assert made.federation.conductor.due_s(made.clock_s) == 600.0
    wait(made, 599)
    assert (made.state.number, evaluator.stopped) == (0, 0)
    wait(made, 1)
    assert ([line["error"] for line in made.noted("evaluated")], evaluator.stopped) == (["no figures within 600 s"], 1)
    assert (made.state.number, made.state.collecting) == (1, True)


def test_evaluations_that_all_hang_are_given_twice_the_time_at_most_and_never_more_than_six_hours(measured):
    made, _ = measured(float("inf"))
    conductor, waited = made.federation.conductor, []
    for _ in range(8):
        answer(made, "dev-0")
        waited.append(conductor.due_s(made.clock_s))
        wait(made, waited[-1])
    assert waited == [600, 1200, 2400, 4800, 9600, 19200, 21600, 21600]


def test_a_slow_evaluation_is_waited_for_in_the_end_and_then_has_time_enough(measured):
    made, evaluator = measured(1500)
    for _ in range(2):
        answer(made, "dev-0")
        wait(made, made.federation.conductor.due_s(made.clock_s))
    answer(made, "dev-0")
    wait(made, 1500)
    assert ["accuracy" in line for line in made.noted("evaluated")] == [False, False, True]
    evaluator.takes_s = float("inf")
    answer(made, "dev-0")
    assert made.federation.conductor.due_s(made.clock_s) == 15000.0


def test_an_evaluation_may_take_ten_times_as_long_as_the_longest(measured):
    made, evaluator = measured(200)
    answer(made, "dev-0")
    wait(made, 200)
    assert [line["accuracy"] for line in made.noted("evaluated")] == [0.5]
    evaluator.takes_s = float("inf")
    answer(made, "dev-0")
    assert made.federation.conductor.due_s(made.clock_s) == 2000.0
    wait(made, 2000)
    assert made.noted("evaluated")[-1]["error"] == "no figures within 2000 s"
