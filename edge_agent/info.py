"""What a device is and can do, published once for each link; and what it does now."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_agent.config import AgentConfig
from edge_agent.upload import Upload
from edge_agent.work import Work
from wire.frame import VERSION, Kind, encode_frame
from wire.messages.reports import DeviceState

__all__ = ["device_info", "present_state", "runtime_version"]


def device_info(config: AgentConfig) -> bytes:
    """Returns the device's capabilities as a frame. What is not known is absent."""
    facts: dict[str, object] = {
        "protocol": VERSION,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "torch": _installed("torch"),
        "onnxruntime": runtime_version(),
        "agent": _installed("bitfleet-agent") or _installed("bitfleet"),
        "task": config.data.task,
    }
    return encode_frame(Kind.INFO, {name: fact for name, fact in facts.items() if fact is not None})


def runtime_version() -> str | None:
    """Returns the version of ONNX Runtime that is installed, without loading it."""
    return _installed("onnxruntime") or _installed("onnxruntime-gpu")


def present_state(session: int, trouble: tuple[str, str], work: Work | None, upload: Upload | None) -> DeviceState:
    """Returns what the device does now; `trouble` is the code and the reason of what went wrong last."""
    code, reason = trouble
    if work:
        name = "training" if work.training else "fetching"
        return DeviceState(name, session, work.plan.run, work.plan.round, code, reason)
    if upload:
        return DeviceState("uploading", session, upload.entry.run, upload.entry.round, code, reason)
    return DeviceState("idle" if code else "ready", session, code=code, reason=reason)


def _memory_bytes(root: Path = Path("/")) -> int | None:
    try:
        first = (root / "proc/meminfo").read_text().split("\n", 1)[0]
        return int(first.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return None


@lru_cache
def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
