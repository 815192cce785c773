"""The end of the health window: the last probe beside training, and what it takes to send a model back."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.config import ModelConfig
from edge_agent.serving import model as serving_model
from edge_agent.serving.health import failures_of, note_failure
from edge_agent.serving.model import Model
from edge_agent.serving.policy import Finding
from tests.edge_agent.serving.stage.files import INPUT, file_bytes
from tests.edge_agent.serving.stage.sides import HEALTH_S
from wire.errors import StateError, WireError


class Last:
    """The last probe of a model on trial: it is under way until `says` has something."""

    def __init__(self, one):
        self.one, self.says, self.begun = one, [], 0
        self.probe, self.start = one.serving.probe, one.serving.probe.start
        self.probe.start, self.probe.poll, self.step = self.begin, self.poll, one.serving.step

    def begin(self, header, now_s):
        self.begun += 1
        self.start(header, now_s)

    def poll(self, now_s):
        if not self.says:
            return None
        self.probe.stop()
        return Finding(latency_ms=self.says.pop(0))

    def train(self, training):
        self.one.serving.step = (lambda now_s, _: self.step(now_s, True)) if training else self.step
        self.one.turn()


@pytest.fixture
def last(side):
    """Returns the last probe of version 2, which has just begun; the board allows one second."""
    one = side(model=ModelConfig(health_s=HEALTH_S, max_latency_ms=1000.0))
    assert one.bring(one.publisher.manifest(1, {"float-32": file_bytes()})).phase == "healthy"
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(3)}))
    one.until("active", version=2)
    made = Last(one)
    one.wait(lambda: made.begun)
    return made


def test_the_last_probe_gives_way_to_training_and_comes_after_it(last):
    last.train(True)
    assert not last.probe.busy
    for _ in range(50):
        last.train(True)
    assert (last.begun, last.one.serving.report.phase) == (1, "active")
    last.says = [1.0]
    last.train(False)
    assert last.one.until("healthy", version=2).active == 2
    assert last.begun == 2


def test_a_probe_that_gave_way_often_goes_on_and_its_latency_says_nothing(last):
    for _ in range(3):
        last.train(True)
        assert not last.probe.busy
        last.train(False)
        last.one.wait(lambda: last.probe.busy)
    last.train(True)
    assert last.probe.busy
    last.says = [1e6]
    last.train(True)
    assert (last.says, last.one.serving.report.phase) == ([], "active")
    last.says = [1e6, 1.0]
    last.train(False)
    assert last.one.until("healthy", "rolled-back", version=2).phase == "healthy"


@pytest.mark.parametrize(
    ("latencies", "phase", "code"), [([1e6, 1.0], "healthy", ""), ([1e6, 2e6], "rolled-back", "E-MODEL-HEALTH")]
)
def test_a_latency_over_the_limit_is_measured_once_more(last, latencies, phase, code):
    last.says = list(latencies)
    report = last.one.until("healthy", "rolled-back", version=2)
    assert (report.phase, report.code, last.says, last.begun) == (phase, code, [], 2)


def test_one_absurd_reading_sends_no_model_back(one):
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes(7)}))
    one.until("active", version=2)
    model = Model.current(one.folder / "state")
    for _ in range(5):
        with pytest.raises(WireError, match="E-MODEL-NAN"):
            model.predict(np.full(INPUT, 3e38, np.float32))
    assert one.until("healthy", "rolled-back", version=2).phase == "healthy"


def test_a_first_model_that_is_withdrawn_answers_no_more_and_the_next_one_does(side, monkeypatch):
    one = side()
    one.offer(one.publisher.manifest(1, {"float-32": file_bytes()}))
    one.until("active", version=1)
    model, x = Model.current(one.folder / "state"), np.zeros(INPUT, np.float32)
    note_failure(one.models, model.loaded.facts["digest"], "E-MODEL-NAN", "an answer is not finite")
    one.until("rolled-back", version=1)
    monkeypatch.setattr(serving_model, "_GRACE_S", 1e9)
    model.follow()
    assert model.answer(x).version == 1
    monkeypatch.setattr(serving_model, "_GRACE_S", 0.0)
    words = r"model 1 \(float-32\) was withdrawn, E-MODEL-HEALTH: .*not finite; none serves.*bitfleet rollout start"
    for _ in range(2):
        with pytest.raises(StateError, match=words):
            model.predict(x)
    with pytest.raises(StateError, match=r"no model serves.*version 1 was rolled-back: E-MODEL-HEALTH"):
        Model.current(one.folder / "state")
    one.offer(one.publisher.manifest(2, {"float-32": file_bytes()[:-40]}, answers={"float-32": np.zeros((8, 3))}))
    one.until("refused", version=2)
    with pytest.raises(StateError, match=words):
        model.predict(x)
    one.bring(one.publisher.manifest(3, {"float-32": file_bytes(3)}))
    assert model.answer(x).version == 3


def test_the_notes_do_not_grow_without_end(tmp_path):
    for _ in range(600):
        note_failure(tmp_path, "0" * 64, "E-MODEL-NAN", "x" * 1000)
    assert (tmp_path / "failures").stat().st_size < 66_000
    with (tmp_path / "failures").open("ab") as file:
        file.write(b'{"torn')
    assert len(failures_of(tmp_path, "0" * 64)) > 100
