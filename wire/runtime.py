"""ONNX Runtime as this project loads it: without the usage data that its builds since 1.29 send to their maker.

Said before the first import, or too late: the runtime writes an identity of the machine and its first records then. Who
wants it to go on sending sets ORT_DISABLE_TELEMETRY=0.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ["load_runtime"]


def load_runtime() -> Any:
    """Returns the module onnxruntime; ImportError where it is not installed."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: PLC0415

    return onnxruntime
