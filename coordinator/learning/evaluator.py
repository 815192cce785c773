"""Measures the global model on the task's held-out test set, in a child process: torch lives only there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from models.dataset import Dataset
from wire.errors import BitfleetError, StateError
from wire.frame import Frame, Kind, encode_frame
from wire.messages.blob import read_trunk
from wire.params import Params
from wire.pipe import Errand, serve_pipe
from wire.spec import ModelSpec

__all__ = ["ChildEvaluator", "Evaluator", "Question", "evaluate", "main"]


_TRIES = 3


@dataclass(frozen=True, slots=True)
class Question:
    """What to measure: the model in a checkpoint on a task's test set, as it is deployed, and at each bit-width.

    `trunk` is the file of the frozen tensors' blob, empty if they come from the seed.
    """

    spec: ModelSpec
    checkpoint: str
    task: str
    transforms: tuple[Mapping[str, Any], ...] = ()
    bits: tuple[int, ...] = ()
    grid: str = "tensor"
    range: str = "minmax"
    trunk: str = ""


class Evaluator(Protocol):
    """Takes one model at a time."""

    def start(self, question: Question) -> None:
        """Begins to measure."""

    def poll(self) -> dict[str, Any] | None:
        """Returns the figures once they are there; {"error": reason} if they cannot be had."""

    def stop(self) -> None:
        """Ends whatever runs."""

    @property
    def wake(self) -> Sequence[int]:
        """Returns the file descriptors that are readable when `poll` has something."""


@dataclass(slots=True)
class ChildEvaluator:
    """Keeps one child from its first use."""

    errand: Errand = field(default_factory=lambda: Errand("coordinator.learning.evaluator", {"OMP_NUM_THREADS": "1"}))
    job: dict[str, Any] = field(default_factory=dict)
    tries: int = 0

    def start(self, question: Question) -> None:
        """See Evaluator."""
        self.job, self.tries = asdict(question), 1
        self.errand.start(self.job)

    def poll(self) -> dict[str, Any] | None:
        """See Evaluator; a child that was killed is started again."""
        try:
            return self.errand.poll()
        except StateError as exc:
            if self.tries >= _TRIES:
                return {"error": exc.message}
            self.tries += 1
            self.errand.start(self.job)
            return None

    def stop(self) -> None:
        """See Evaluator."""
        self.errand.stop()

    @property
    def wake(self) -> Sequence[int]:
        """See Evaluator."""
        return self.errand.wake


def evaluate(question: Question) -> dict[str, Any]:
    """Returns loss and accuracy over the task's test set, its size, and the accuracy at each bit-width.

    A net that was trained under masks is measured under them; what it does without is `accuracy_unmasked`. A figure
    that is not finite is left out.
    """
    import torch  # noqa: PLC0415

    from coordinator.learning.checkpoint import load_state  # noqa: PLC0415
    from models.nets import build, load  # noqa: PLC0415
    from models.tasks import dataset_of  # noqa: PLC0415
    from models.weights.ladder import assess  # noqa: PLC0415

    torch.set_num_threads(1)
    data, spec = _test_set(str(dataset_of(question.task))), question.spec
    net = build(spec, _still(question))
    load(net, load_state(Path(question.checkpoint), spec).model)
    figures = assess(net, data, question.transforms, question.bits, question.grid == "channel", question.range)
    known = {name: value for name, value in figures.items() if not isinstance(value, float) or isfinite(value)}
    return {**known, "examples": len(data)}


@lru_cache(maxsize=1)
def _test_set(name: str) -> Dataset:
    """Returns the test set, read once by a process that measures round after round."""
    from models.data import load  # noqa: PLC0415

    return load(name, "test")


def _still(question: Question) -> Params | None:
    if not question.trunk:
        return None
    path = Path(question.trunk)
    return read_trunk(path.read_bytes(), path.name, question.spec)


def _answer(frame: Frame) -> dict[str, Any]:
    asked = {**frame.header, "spec": ModelSpec.from_json(frame.header["spec"])}
    try:
        return evaluate(Question(**asked))
    except BitfleetError as exc:
        return {"error": str(exc)}


def main() -> None:
    """Serves requests until the coordinator closes the pipe."""
    for frame, answers in serve_pipe(Kind.JOB):
        figures = json.loads(json.dumps(_answer(frame)))
        answers.write(encode_frame(Kind.RESULT, figures))
        answers.flush()


if __name__ == "__main__":
    main()
