"""Opens a file in ONNX Runtime: one way for the probe and for the application, so that both run the same thing.

Only the CPU is used: it is what the exporter's gate has proven, and every wheel of the runtime has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wire.errors import BitfleetError, ConfigError, WireError
from wire.runtime import load_runtime
from wire.spec import parse_json

__all__ = ["METADATA_KEY", "OPTIONS", "checked_options", "open_session", "run_rows"]

METADATA_KEY = "session_options"
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "session.disable_quant_qdq": ("0", "1"),
    "session.qdq_matmulnbits_accuracy_level": ("0", "1", "4"),
}
"""What a file may ask of the runtime. Other options name files, libraries or threads: those are the device's own."""
_FORMAT = ("session.load_model_format", "ONNX")
"""Without it the runtime goes by the file's first bytes, and may see another model in it than was looked at."""
_FATAL = 4
_LONGEST_REASON = 300


def checked_options(metadata: Mapping[str, str]) -> dict[str, str]:
    """Returns the session options that a file's metadata ask for; WireError for one that is not on the list."""
    try:
        wanted = parse_json(metadata.get(METADATA_KEY, "{}"))
    except (ValueError, RecursionError) as exc:
        raise WireError(f"metadata {METADATA_KEY!r} is not JSON", code="E-MODEL-GRAPH") from exc
    if not isinstance(wanted, dict) or not all(OPTIONS.get(k) and v in OPTIONS[k] for k, v in wanted.items()):
        raise WireError(f"session options {str(wanted)[:200]}; known: {', '.join(OPTIONS)}", code="E-MODEL-GRAPH")
    return wanted


def open_session(data: bytes, options: Mapping[str, str], threads: int = 1) -> Any:
    """Returns a session over a file's bytes; WireError (E-MODEL-LOAD) with the runtime's own words if it cannot be."""
    try:
        onnxruntime = load_runtime()
    except ImportError as exc:
        raise ConfigError(
            f"{exc}", code="E-INSTALL", remedy="install the extra `infer`: onnxruntime and NumPy"
        ) from exc
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads, settings.inter_op_num_threads = threads, 1
    settings.log_severity_level = _FATAL
    for name, value in options.items():
        settings.add_session_config_entry(name, value)
    settings.add_session_config_entry(*_FORMAT)
    try:
        return onnxruntime.InferenceSession(data, settings, providers=["CPUExecutionProvider"])
    except BitfleetError:
        raise
    except Exception as exc:  # the runtime's errors share no root
        reason = f"{type(exc).__name__}: {exc}"[:_LONGEST_REASON]
        raise WireError(f"the runtime does not load it: {reason}", code="E-MODEL-LOAD") from exc


def run_rows(session: Any, rows: Any) -> Any:
    """Returns the outputs for examples in rows, one after the other where the file takes only one at a time."""
    import numpy as np  # noqa: PLC0415

    first = session.get_inputs()[0]
    output = session.get_outputs()[0].name
    if isinstance(first.shape[0], int) and len(rows) != first.shape[0]:
        return np.concatenate([session.run([output], {first.name: rows[at : at + 1]})[0] for at in range(len(rows))])
    return session.run([output], {first.name: rows})[0]
