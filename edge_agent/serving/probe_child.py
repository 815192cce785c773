"""The probing child: looks at one file, loads it, compares its answers, measures it, and says what it found.

Everything that reads the bytes of a model happens here, behind limits on memory and processor time: first what it takes
to look at a file of that size, then, with the runtime loaded, what the device has free. Another job of its is to cut a
file from a bundle.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edge_agent.config import DataConfig
from edge_agent.meters.found import find_meter
from edge_agent.meters.power import Metering
from edge_agent.serving.nested.cutting import cut_file
from edge_agent.serving.policy import Finding
from edge_agent.serving.session import checked_options, open_session, run_rows
from edge_agent.serving.slots import file_digest
from edge_agent.serving.static.graph import Expected, check_graph
from wire.errors import BitfleetError, WireError
from wire.frame import Kind, encode_frame
from wire.pipe import give_way, peak_memory, serve_pipe
from wire.runtime import empty_runtime

__all__ = ["answer", "main", "probe"]

_WARM_UPS = 3
_RUNS = 25
_ROWS = 64
_METERED_S = 1.0  # at ten readings a second, the ends weigh little
_LONGEST_REASON = 400
_FIRST_TO_GO = 900
_LOOK_BYTES = 64 << 20
_LOOK_COPIES = 4  # of the file at most: as read, and what is noted of its parts


def probe(header: Mapping[str, Any]) -> tuple[Finding, dict[str, str]]:
    """Returns the figures of a file and its session options; raises WireError with the code of the first fault."""
    path = Path(header["path"])
    for name in ("path", "golden"):
        if file_digest(Path(header[name])) != header["digest" if name == "path" else "golden_digest"]:
            raise WireError(f"{header[name]} does not hold what its digest says", code="E-BLOB")
    data, options = _look(header, path)
    empty, source = _empty_runtime(header["memory_bytes"])
    began_s = time.perf_counter()
    session = open_session(data, options)
    load_ms = 1e3 * (time.perf_counter() - began_s)
    first = _check_golden(session, header)
    latency_ms = _latency_ms(session, first)
    peak = peak_memory(source)
    accuracy, examples = _accuracy(session, header)
    memory = None if peak is None else max(0, peak - empty)
    energy_mj, meter = _energy_mj(session, first, header["cpu_s"])
    found = Finding(round(load_ms, 3), round(latency_ms, 4), memory, energy_mj, accuracy, examples, meter)
    return found, options


def _look(header: Mapping[str, Any], path: Path) -> tuple[bytes, dict[str, str]]:
    """Returns a file's bytes and session options, once its graph is one that may be loaded."""
    try:
        data = path.read_bytes()
        expected = Expected(tuple(header["input"]), header["outputs"], tuple(header["operators"]))
        return data, checked_options(check_graph(data, expected))
    except MemoryError:
        if _look_bytes(header) > _free_bytes(header):
            raise  # that much was not free
        raise WireError("to look at it takes more memory than a file of its size may", code="E-MODEL-GRAPH") from None


def answer(header: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what was found as plain JSON values, a failure as its code and reason."""
    try:
        finding, options = _cut(header) if "cut" in header else probe(header)
    except BitfleetError as exc:
        finding, options = Finding(code=exc.code, reason=str(exc).removeprefix(f"{exc.code}: ")[:_LONGEST_REASON]), {}
    except MemoryError:
        finding, options = (
            Finding(code="E-MODEL-LOAD", reason="it takes more memory than is free"),
            {},
        )
    except OSError as exc:
        finding, options = Finding(code="E-DISK", reason=str(exc)[:_LONGEST_REASON]), {}
    except ImportError as exc:
        finding, options = Finding(code="E-INSTALL", reason=f"{exc}; install the extra `infer`"), {}
    return {**asdict(finding), "options": options}


def main() -> None:
    """Answers one job. Under memory pressure the kernel takes this process first."""
    give_way(_FIRST_TO_GO)
    for frame, answers in serve_pipe(Kind.JOB):
        _limit(frame.header)
        found = json.loads(json.dumps(answer(frame.header), allow_nan=False))
        answers.write(encode_frame(Kind.RESULT, found))
        answers.flush()


def _limit(header: Mapping[str, Any]) -> None:
    """Sets what this process may take: no core file, so much time of the processor, and so much memory."""
    cpu_s = max(1, round(header["cpu_s"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    if "cut" in header:
        _limit_memory(header["more_bytes"])
        return
    _limit_memory(round(min(_look_bytes(header), _free_bytes(header))), for_good=False)


def _look_bytes(header: Mapping[str, Any]) -> int:
    """Returns what it may take to look at a file, before it is loaded."""
    path = Path(header["path"])
    return _LOOK_BYTES + _LOOK_COPIES * (path.stat().st_size if path.exists() else 0)


def _free_bytes(header: Mapping[str, Any]) -> float:
    free = header["memory_bytes"]
    return float("inf") if free is None else float(free)


def _limit_memory(more_bytes: int, for_good: bool = True) -> None:
    """Sets how much memory this process may take beyond what it holds."""
    pages = Path("/proc/self/statm").read_text().split()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    most = int(pages[0]) * resource.getpagesize() + more_bytes
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most if for_good else hard))


def _lift_limit() -> None:
    """Ends the limit for looking at a file: to load the runtime takes much more, whatever the file."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _cut(header: Mapping[str, Any]) -> tuple[Finding, dict[str, str]]:
    cut_file(header)
    return Finding(), {}


def _empty_runtime(free_bytes: int | None) -> tuple[int, str]:
    """Returns what the process holds with the runtime and no model; from here on it may take `free_bytes` more."""
    _lift_limit()
    try:
        empty = empty_runtime()
    except ImportError as exc:
        raise WireError(f"{exc}", code="E-INSTALL", remedy="install the extra `infer`: onnxruntime and NumPy") from exc
    if free_bytes is not None:
        _limit_memory(free_bytes)
    return empty


def _check_golden(session: Any, header: Mapping[str, Any]) -> Any:
    """Returns one golden input, after the answers to all of them were right."""
    import numpy as np  # noqa: PLC0415

    from wire.messages.golden import decode_golden  # noqa: PLC0415

    inputs, wanted = decode_golden(Path(header["golden"]).read_bytes())
    if header["variant"] not in wanted or inputs.shape[1:] != tuple(header["input"]):
        raise WireError(f"no golden outputs for variant {header['variant']!r} in its shape", code="E-MODEL-GOLDEN")
    found, right = _run(session, inputs), wanted[header["variant"]]
    if found.shape != right.shape:
        raise WireError(f"outputs of shape {found.shape}, expected {right.shape}", code="E-MODEL-GOLDEN")
    if not np.isfinite(found).all():
        raise WireError(f"{int((~np.isfinite(found)).sum())} outputs are not finite", code="E-MODEL-NAN")
    worst = float(np.abs(found - right).max())
    if worst > header["tolerance"]:
        raise WireError(f"an output is off by {worst:.4g}, at most {header['tolerance']:.4g}", code="E-MODEL-GOLDEN")
    other = int((found.argmax(1) != right.argmax(1)).sum())
    if other:
        raise WireError(f"{other} of {len(right)} golden inputs get another answer", code="E-MODEL-GOLDEN")
    return inputs[:1]


def _run(session: Any, rows: Any) -> Any:
    try:
        return run_rows(session, rows)
    except Exception as exc:  # the runtime's errors share no root
        raise WireError(f"it does not run: {type(exc).__name__}: {exc}"[:300], code="E-MODEL-LOAD") from exc


def _latency_ms(session: Any, one: Any) -> float:
    for _ in range(_WARM_UPS):
        _run(session, one)
    taken = []
    for _ in range(_RUNS):
        began_s = time.perf_counter()
        _run(session, one)
        taken.append(time.perf_counter() - began_s)
    return 1e3 * statistics.median(taken)


def _energy_mj(session: Any, one: Any, cpu_s: float) -> tuple[float | None, str]:
    """Returns what one inference takes, of the whole that the meter sees, and the meter; None where there is none."""
    runs = 0
    try:
        meter = find_meter()
        if meter is None:
            return None, ""
        with Metering(meter) as metering:
            ends_s = time.perf_counter() + min(_METERED_S, cpu_s / 10)
            while time.perf_counter() < ends_s:
                _run(session, one)
                runs += 1
    except (OSError, RuntimeError, MemoryError) as exc:  # the meter's, as a thread that finds no room; not the model's
        print(f"event=no-joules reason={exc!r}", file=sys.stderr)
        return None, ""
    return None if metering.joules is None else round(1e3 * metering.joules / runs, 4), meter.source


def _accuracy(session: Any, header: Mapping[str, Any]) -> tuple[float | None, int]:
    """Returns the share of the device's held-out examples that are right; None where it keeps none."""
    config = DataConfig.from_json(header["data"])
    if not config.held_out:
        return None, 0
    import numpy as np  # noqa: PLC0415

    from edge_agent.training.local_data import held_out_data  # noqa: PLC0415

    try:
        data = held_out_data(config, tuple(header["input"]))
    except (BitfleetError, OSError) as exc:
        print(f"event=no-held-out-data reason={str(exc)!r}", file=sys.stderr)
        return None, 0
    if data is None:
        return None, 0
    right = 0
    for at in range(0, len(data), _ROWS):
        found = _run(session, data.x[at : at + _ROWS])
        if not np.isfinite(found).all():
            raise WireError("outputs for the device's own examples are not finite", code="E-MODEL-NAN")
        right += int((found.argmax(1) == data.y[at : at + _ROWS]).sum())
    return round(right / len(data), 6), len(data)


if __name__ == "__main__":
    main()
