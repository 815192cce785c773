"""Measures the global model on the task's held-out test set, in a child process: torch lives only there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

from wire.errors import BitfleetError, StateError
from wire.frame import Frame, Kind, encode_frame
from wire.pipe import Errand, serve_pipe
from wire.spec import ModelSpec

__all__ = ["ChildEvaluator", "Evaluator", "evaluate", "main"]


_TRIES = 3


class Evaluator(Protocol):
    """Takes one model at a time."""

    def start(self, spec: ModelSpec, checkpoint: Path, task: str) -> None:
        """Begins to measure the model in a checkpoint."""

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

    def start(self, spec: ModelSpec, checkpoint: Path, task: str) -> None:
        """See Evaluator."""
        self.job, self.tries = {"spec": spec.to_json(), "checkpoint": str(checkpoint), "task": task}, 1
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


def evaluate(spec: ModelSpec, checkpoint: Path, task_name: str) -> dict[str, Any]:
    """Returns loss and accuracy over the task's test set, and its size; a figure that is not finite is left out."""
    import torch  # noqa: PLC0415

    from coordinator.learning.checkpoint import load_state  # noqa: PLC0415
    from models.data import load as load_data  # noqa: PLC0415
    from models.measure import measure  # noqa: PLC0415
    from models.nets import build, load  # noqa: PLC0415
    from models.tasks import task  # noqa: PLC0415

    torch.set_num_threads(1)
    data = load_data(str(task(task_name).data), "test")
    net = build(spec)
    load(net, load_state(checkpoint, spec).model)
    figures = {name: value for name, value in measure(net, data).items() if isfinite(value)}
    return {**figures, "examples": len(data)}


def _answer(frame: Frame) -> dict[str, Any]:
    header = frame.header
    try:
        return evaluate(ModelSpec.from_json(header["spec"]), Path(header["checkpoint"]), header["task"])
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
