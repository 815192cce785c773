"""The resource gate: whether this board can take a plan now. Each refusal has its code and its reason.

Every reader takes the root of the file system, so that a board's sensors can be tested on a tree of files.
What cannot be read is None: unknown is not zero, and is not refused either.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from edge_agent.config import AgentConfig, Limits
from edge_agent.kernel_files import number_in, text_in
from wire.errors import Declined, StateError, WireError, said_by
from wire.messages.plan import RoundPlan, shortest_path

__all__ = ["Readings", "check_gate", "disk_failure", "free_memory_bytes", "read_board", "unreadable", "unwritable"]

_MB = 1e6
_MAINS = {"Charging": True, "Full": True, "Not charging": True, "Discharging": False}


@dataclass(frozen=True, slots=True)
class Readings:
    """What the board says of itself now."""

    free_memory_bytes: int | None
    free_disk_bytes: int | None
    temperature_c: float | None
    battery_percent: float | None
    on_mains: bool | None


def read_board(state_dir: Path, root: Path = Path("/")) -> Readings:
    """Returns the board's readings."""
    supplies = [folder for folder in sorted(root.glob("sys/class/power_supply/*")) if folder.is_dir()]
    batteries = [folder for folder in supplies if text_in(folder / "type") == "Battery" and _own(folder)]
    return Readings(
        free_memory_bytes=_memory_for_training(root),
        free_disk_bytes=_free_disk(state_dir),
        temperature_c=_hottest(root),
        battery_percent=number_in(batteries[0] / "capacity") if batteries else None,
        on_mains=_MAINS.get(text_in(batteries[0] / "status")) if batteries else None,
    )


def check_gate(plan: RoundPlan, config: AgentConfig, board: Readings) -> None:
    """Raises Declined with the first reason not to take the plan."""
    if plan.train.task != config.data.task:
        raise Declined(
            f"the plan trains {plan.train.task!r}, this device holds {config.data.task!r}",
            code="E-NO-DATA",
            remedy="set [data] task, or leave the device out of this run",
        )
    if plan.train.batch > config.train.max_batch:
        raise Declined(f"batch {plan.train.batch}, at most {config.train.max_batch} here", code="E-ENVELOPE")
    _check_space(plan, config.limits, board)
    _check_power(config.limits, board)


def disk_failure(exc: OSError) -> Declined:
    """Returns what a device says when its storage does not take what it has to write."""
    full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "free some space" if full else "look at the device's storage"
    return Declined(str(exc), code="E-DISK-SPACE" if full else "E-DISK", remedy=remedy)


def unwritable(path: Path, exc: OSError) -> StateError:
    """Returns the error of a command or a start that cannot write a file or make a folder."""
    failure = disk_failure(exc)
    return StateError(f"{path} cannot be written: {said_by(exc)}", code=failure.code, remedy=failure.remedy)


def unreadable(path: Path, exc: OSError) -> StateError:
    """Returns the error of a command or a start that cannot read a file that is there."""
    failure = disk_failure(exc)
    return StateError(f"{path} cannot be read: {said_by(exc)}", code=failure.code, remedy=failure.remedy)


def free_memory_bytes(root: Path = Path("/")) -> int | None:
    """Returns what the kernel says can be had without swapping."""
    for line in text_in(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _memory_for_training(root: Path) -> int | None:
    """Returns what is free, with what this process's own child holds: a lingering child takes the next job in it."""
    free = free_memory_bytes(root)
    return None if free is None else free + sum(_held_by(path.parent) for path in root.glob("proc/[0-9]*/stat"))


def _held_by(process: Path) -> int:
    """Returns the memory that a child of this process would give back; 0 for any other process."""
    fields = text_in(process / "stat").rpartition(")")[2].split()
    pages = text_in(process / "statm").split()
    if len(fields) < 2 or fields[1] != str(os.getpid()) or len(pages) < 3:
        return 0
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")


def _own(supply: Path) -> bool:
    """Tells whether a supply feeds this board, not a mouse beside it."""
    return text_in(supply / "scope") != "Device"


def _fetch_bytes(plan: RoundPlan) -> int:
    """Returns what a new device has to fetch, at least; nothing for a model that only others can reach."""
    try:
        return plan.spec_bytes + sum(ref.size for ref in shortest_path(plan.blobs, [plan.initial], plan.base, ()))
    except WireError:
        return plan.spec_bytes


def _check_space(plan: RoundPlan, limits: Limits, board: Readings) -> None:
    memory, disk = board.free_memory_bytes, board.free_disk_bytes
    memory_floor = max(limits.min_free_memory_mb * _MB, plan.envelope.memory_bytes)
    if memory is not None and memory < memory_floor:
        raise Declined(f"{memory / _MB:.0f} MB of memory free, {memory_floor / _MB:.0f} needed", code="E-MEMORY")
    disk_floor = limits.min_free_disk_mb * _MB + plan.envelope.disk_bytes + _fetch_bytes(plan)
    if disk is not None and disk < disk_floor:
        raise Declined(f"{disk / _MB:.0f} MB of disk free, {disk_floor / _MB:.0f} needed", code="E-DISK-SPACE")


def _check_power(limits: Limits, board: Readings) -> None:
    if board.temperature_c is not None and board.temperature_c > limits.max_temperature_c:
        raise Declined(f"{board.temperature_c:.0f} C, at most {limits.max_temperature_c:.0f}", code="E-HOT")
    if board.on_mains is not False:
        return
    if limits.mains_only:
        raise Declined("running on battery, and mains_only is set", code="E-POWER")
    if board.battery_percent is not None and board.battery_percent < limits.min_battery_percent:
        raise Declined(
            f"battery at {board.battery_percent:.0f} %, at least {limits.min_battery_percent:.0f}", code="E-POWER"
        )


def _free_disk(folder: Path) -> int | None:
    try:
        numbers = os.statvfs(folder)
    except OSError:
        return None
    return numbers.f_bavail * numbers.f_frsize


def _hottest(root: Path) -> float | None:
    zones = [number_in(path) for path in sorted(root.glob("sys/class/thermal/thermal_zone*/temp"))]
    found = [zone / 1000 for zone in zones if zone is not None]
    return max(found) if found else None
