"""What a file takes of memory beyond the runtime itself, measured in a process of its own, as a board's probe does."""

from __future__ import annotations

import select
import sys
from time import monotonic

import numpy as np

from wire.errors import StateError
from wire.frame import Kind, encode_frame
from wire.params import Array
from wire.pipe import Errand, peak_memory, serve_pipe
from wire.runtime import empty_runtime

__all__ = ["main", "memory_of"]

_MODULE = "export.proof.memory"
_ROWS = 8  # as many as there are golden inputs, which a board answers at once
_LONGEST_S = 120.0
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def memory_of(data: bytes, inputs: Array) -> int | None:
    """Returns the bytes at the peak of loading the file and answering; None where the child died or the kernel is mute.

    It has passed the gate by now, so that what the child has to say is no reason to refuse it.
    """
    errand, rows = Errand(_MODULE, dict.fromkeys(_ONE_THREAD, "1")), np.ascontiguousarray(inputs[:_ROWS], np.float32)
    try:
        errand.start({"shape": list(rows.shape)}, rows.tobytes() + data)
        return _answer(errand)
    except StateError as exc:
        print(f"event=memory-unknown reason={exc.message!r}", file=sys.stderr)
        return None
    finally:
        errand.stop()


def main() -> None:
    """Answers one job: loads the file, runs it twice, and says what that took."""
    for frame, answers in serve_pipe(Kind.JOB):
        answers.write(encode_frame(Kind.RESULT, {"bytes": _taken(frame.header["shape"], bytes(frame.payload))}))
        answers.flush()


def _answer(errand: Errand) -> int | None:
    ends_s = monotonic() + _LONGEST_S
    while monotonic() < ends_s:
        select.select(errand.wake, [], [], 1.0)
        found = errand.poll()
        if found is not None:
            return None if found["bytes"] is None else int(found["bytes"])
    raise StateError(f"to load the file and answer took more than {_LONGEST_S:.0f} s")


def _taken(shape: list[int], payload: bytes) -> int | None:
    rows = np.frombuffer(payload, np.float32, int(np.prod(shape))).reshape(shape)
    data = payload[rows.nbytes :]
    empty, counter = empty_runtime()
    if counter != "VmHWM":  # a peak that is not of this process alone: Linux carries ru_maxrss over fork and exec
        return None
    from export.sessions import open_session, run  # noqa: PLC0415

    session = open_session(data)
    for _ in range(2):
        run(session, rows)
    peak = peak_memory(counter)
    return None if peak is None else max(0, peak - empty)


if __name__ == "__main__":
    main()
