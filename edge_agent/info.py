"""What a device is and can do, published once for each link."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_agent.config import AgentConfig
from wire.frame import VERSION, Kind, encode_frame

__all__ = ["device_info"]


def device_info(config: AgentConfig) -> bytes:
    """Returns the device's capabilities as a frame. What is not known is absent."""
    facts: dict[str, object] = {
        "protocol": VERSION,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "torch": _installed("torch"),
        "agent": _installed("bitfleet-agent") or _installed("bitfleet"),
        "task": config.data.task,
    }
    return encode_frame(Kind.INFO, {name: fact for name, fact in facts.items() if fact is not None})


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
