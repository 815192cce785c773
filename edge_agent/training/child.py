"""The training child: takes jobs from the resident, one at a time, and says how each went. torch lives only here."""

from __future__ import annotations

import sys
import traceback
from typing import Any

from edge_agent.gate import disk_failure
from edge_agent.training.job import Common, job_from, run_job
from wire.errors import BitfleetError
from wire.frame import Frame, Kind, encode_frame
from wire.pipe import give_way, serve_pipe

__all__ = ["answer", "main"]

_FIRST_TO_GO = 800
_LONGEST_REASON = 400


def answer(frame: Frame, common: Common | None = None) -> dict[str, Any]:
    """Returns the result of a job, or the code and the reason why there is none; see `run_job`."""
    try:
        return run_job(job_from(frame.header, bytes(frame.payload)), common)
    except BitfleetError as exc:
        return {"code": exc.code, "reason": str(exc).removeprefix(f"{exc.code}: ")}
    except OSError as exc:
        failure = disk_failure(exc)
        return {"code": failure.code, "reason": failure.message}
    except MemoryError:
        return {"code": "E-MEMORY", "reason": "the training child ran out of memory"}
    except ImportError as exc:
        return {"code": "E-INSTALL", "reason": f"{exc}; install it on this device"}
    except Exception as exc:  # the same job fails in the same way again: a name, not a dead child
        traceback.print_exc(file=sys.stderr)
        return {"code": "E-TRAIN", "reason": f"{type(exc).__name__}: {exc}"[:_LONGEST_REASON]}


def main() -> None:
    """Serves jobs until the resident closes the pipe. Under memory pressure the kernel takes this process first."""
    give_way(_FIRST_TO_GO)
    for frame, answers in serve_pipe(Kind.JOB):
        answers.write(encode_frame(Kind.RESULT, answer(frame)))
        answers.flush()


if __name__ == "__main__":
    main()
