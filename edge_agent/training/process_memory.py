"""Peak memory of this process by the kernel's own counter, with the counter's name. Unknown is None."""

from __future__ import annotations

import resource
from pathlib import Path

__all__ = ["peak_memory", "reset_peak_memory"]

_RESET_PEAK = "5"


def reset_peak_memory(root: Path = Path("/")) -> str:
    """Starts the peak anew where the kernel lets us, and returns the name of the counter to read later."""
    try:
        (root / "proc/self/clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return "ru_maxrss"
    return "VmHWM"


def peak_memory(source: str, root: Path = Path("/")) -> int | None:
    """Returns bytes: VmHWM since the reset, or the peak since the process began if it could not be reset."""
    if source == "ru_maxrss":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    try:
        lines = (root / "proc/self/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else None
