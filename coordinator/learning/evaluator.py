"""Measures the global model on the task's held-out test set, in a child process: torch lives only there."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from wire.errors import BitfleetError, WireError
from wire.frame import Frame, Kind, encode_frame
from wire.pipe import Child, serve_pipe
from wire.spec import ModelSpec

__all__ = ["ChildEvaluator", "Evaluator", "evaluate", "main"]


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

    child: Child | None = None
    busy: bool = False
    request: tuple[ModelSpec, Path, str] | None = None
    tries: int = 0

    def start(self, spec: ModelSpec, checkpoint: Path, task: str) -> None:
        """See Evaluator."""
        self.request, self.tries = (spec, checkpoint, task), 0
        self._send()

    def poll(self) -> dict[str, Any] | None:
        """See Evaluator; a child that was killed is started again, twice."""
        if self.child is None or not self.busy:
            return None
        try:
            frame = self.child.read(Kind.RESULT)
        except (WireError, OSError) as exc:
            return self._failed(str(exc))
        if frame is not None:
            self.busy = False
            return dict(frame.header)
        if not self.child.ended:
            return None
        return self._failed(f"the evaluation child was {self.child.ending()}")

    def stop(self) -> None:
        """See Evaluator."""
        if self.child is not None:
            self.child.stop()
        self.child, self.busy = None, False

    @property
    def wake(self) -> Sequence[int]:
        """See Evaluator."""
        return (self.child.fd,) if self.child is not None and self.busy else ()

    def _send(self) -> None:
        if self.request is None:
            return
        spec, checkpoint, task = self.request
        if self.child is None or self.child.ended:
            self.stop()
            self.child = Child.start("coordinator.learning.evaluator", {"OMP_NUM_THREADS": "1"})
        self.busy, self.tries = True, self.tries + 1
        self.child.send(Kind.JOB, {"spec": spec.to_json(), "checkpoint": str(checkpoint), "task": task})

    def _failed(self, reason: str) -> dict[str, Any] | None:
        self.stop()
        if self.tries > 2:
            return {"error": reason}
        self._send()
        return None


def evaluate(spec: ModelSpec, checkpoint: Path, task_name: str) -> dict[str, Any]:
    """Returns loss and accuracy over the task's test set, and its size."""
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
    return {**measure(net, data), "examples": len(data)}


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
