"""Models opened in ONNX Runtime, and what they answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.refused import ExportError
from wire.params import Array
from wire.runtime import load_runtime

if TYPE_CHECKING:
    import onnxruntime
else:
    onnxruntime = load_runtime()

__all__ = ["answers", "open_session", "run"]

_ERRORS_ONLY = 3


def open_session(
    data: bytes,
    threads: int = 1,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    optimised_path: Path | None = None,
) -> onnxruntime.InferenceSession:
    """Returns a session with default optimisation that logs errors only; writes the optimised model if told where."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    if optimised_path is not None:
        options.optimized_model_filepath = str(optimised_path)
    try:
        return onnxruntime.InferenceSession(data, options, providers=list(providers))
    except Exception as exc:  # the runtime has a class of its own for each failure, and no common one
        raise ExportError(f"ONNX Runtime {onnxruntime.__version__} refuses the file: {str(exc)[:300]}") from exc


def answers(session: onnxruntime.InferenceSession, inputs: Array, batch: int = 256) -> Array:
    """Returns the first output for all inputs, run in batches."""
    if not len(inputs):
        raise ExportError("there are no inputs to run", remedy="give at least one example")
    return np.concatenate([run(session, inputs[at : at + batch])[0] for at in range(0, len(inputs), batch)])


def run(session: onnxruntime.InferenceSession, inputs: Array, names: Sequence[str] | None = None) -> list[Array]:
    """Returns the outputs of these names, or all, for one batch."""
    try:
        outputs: list[Array] = session.run(names, {session.get_inputs()[0].name: inputs})
    except Exception as exc:  # as above
        raise ExportError(f"ONNX Runtime {onnxruntime.__version__} cannot run the file: {str(exc)[:300]}") from exc
    return outputs
