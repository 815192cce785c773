"""ONNX Runtime as this project loads it: without the usage data that its builds since 1.29 send to their maker.

Said before the first import, or too late: the runtime writes an identity of the machine and its first records then. Who
wants it to go on sending sets ORT_DISABLE_TELEMETRY=0.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

__all__ = ["empty_runtime", "load_runtime"]


def load_runtime() -> Any:
    """Returns the module onnxruntime; ImportError where it is not installed."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: PLC0415

    return onnxruntime


def empty_runtime() -> tuple[int, str]:
    """Loads the runtime; returns the bytes that this process then holds, and the counter of its peak from here on.

    What a model takes is that peak less these bytes.
    """
    import numpy as np  # noqa: PLC0415

    from wire.pipe import reset_peak_memory  # noqa: PLC0415

    load_runtime()
    np.ones((8, 8), np.float32) @ np.ones((8, 8), np.float32)
    pages = Path("/proc/self/statm").read_text().split()
    return int(pages[1]) * resource.getpagesize(), reset_peak_memory()
