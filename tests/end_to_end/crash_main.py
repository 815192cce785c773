"""Runs one of our programs and kills it, as `kill -9` would, at exact places: right before or right after a call.

The environment says what to run (BITFLEET_CRASH_MODULE) and, for each module, where to die (BITFLEET_CRASH_POINTS:
JSON, module to list of points). A process dies at the first point of its list that was not hit by an earlier one; a
file in the folder BITFLEET_CRASH_FUSES says which were. The programs know nothing of this.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wire.pipe import Child

__all__ = ["CHILD", "Point", "crash_environment", "fuse_path"]

CHILD = "edge_agent.training.child"
_MODULE, _POINTS, _FUSES = "BITFLEET_CRASH_MODULE", "BITFLEET_CRASH_POINTS", "BITFLEET_CRASH_FUSES"


@dataclass(frozen=True)
class Point:
    """Die `when` (before, after, or committed: after the transaction around it) the `nth` call of `target`.

    `target` is written module:name or module:Class.name, where the name is looked up by its caller.
    """

    target: str
    when: str
    nth: int = 1

    @property
    def name(self) -> str:
        return f"{self.target.replace(':', '.')}-{self.when}-{self.nth}"


def crash_environment(module: str, points: dict[str, list[Point]], fuses: Path) -> dict[str, str]:
    """Returns what to add to the environment of `python -m tests.end_to_end.crash_main`."""
    lists = {name: [[point.target, point.when, point.nth] for point in found] for name, found in points.items()}
    return {_MODULE: module, _POINTS: json.dumps(lists), _FUSES: str(fuses)}


def fuse_path(fuses: Path, module: str, point: Point) -> Path:
    """Returns the file that is there once a process of `module` died at `point`."""
    return fuses / f"{module}-{point.name}"


def arm(point: Point, fuse: Path) -> None:
    """Wraps the target, so that its nth call in this process is the end of it."""
    place, attribute = _find(point.target)
    original, calls, armed = getattr(place, attribute), [0], [False]

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] != point.nth:
            return original(*args, **kwargs)
        if point.when == "before":
            die(fuse)
        result = original(*args, **kwargs)
        if point.when == "after":
            die(fuse)
        armed[0] = True
        return result

    setattr(place, attribute, wrapped)
    if point.when == "committed":
        _die_after_commit(armed, fuse)


def die(fuse: Path) -> None:
    """Ends this process without a word."""
    os.close(os.open(fuse, os.O_CREAT | os.O_EXCL))
    os.kill(os.getpid(), signal.SIGKILL)


def _find(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    place: Any = importlib.import_module(module)
    *parents, attribute = path.split(".")
    for name in parents:
        place = getattr(place, name)
    return place, attribute


def _die_after_commit(armed: list[bool], fuse: Path) -> None:
    from coordinator.state.database import Database

    original: Callable[[Database], Any] = Database.change

    @contextmanager
    def change(self: Database) -> Iterator[None]:
        with original(self):
            yield
        if armed[0]:
            die(fuse)

    Database.change = change


def _lead_children_here(environment: dict[str, str]) -> None:
    """Makes the agent start its training child through this file too."""
    start = Child.start

    def start_here(module: str, extra: dict[str, str] | None = None) -> Child:
        return start("tests.end_to_end.crash_main", {**(extra or {}), **environment, _MODULE: module})

    Child.start = start_here


def main() -> None:
    """Arms the first point that is left, and becomes the program."""
    module, fuses = os.environ[_MODULE], Path(os.environ[_FUSES])
    lists = json.loads(os.environ[_POINTS])
    points = [Point(*entry) for entry in lists.get(module, [])]
    left = [point for point in points if not fuse_path(fuses, module, point).exists()]
    if left:
        arm(left[0], fuse_path(fuses, module, left[0]))
    if CHILD in lists and module != CHILD:
        _lead_children_here({_POINTS: os.environ[_POINTS], _FUSES: os.environ[_FUSES]})
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
