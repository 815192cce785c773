"""What the kernel says of a process: memory, processor time, children. A process that is gone raises OSError."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cpu_s", "family", "peak_bytes", "resident_bytes"]

_TICKS = os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Returns what the process holds in memory now (VmRSS)."""
    return _status_bytes(pid, "VmRSS")


def peak_bytes(pid: int) -> int:
    """Returns the most that it ever held (VmHWM)."""
    return _status_bytes(pid, "VmHWM")


def cpu_s(pid: int) -> float:
    """Returns the seconds that its threads ran, user and system, in ticks of 10 ms on most kernels."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / _TICKS


def family(pid: int) -> list[int]:
    """Returns the process and all that descend from it."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for path in threads for child in path.read_text().split()]
    return [pid, *(each for child in children for each in family(child))]


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no {name}: it has ended")
