"""Does one thing to the slots again and again, and dies of it at every call to the file system, one after the other.

`python -m tests.edge_agent.serving.stage.kill_points BASE ACTION` leaves BASE.1, BASE.2, ...: copies of BASE as the nth
call left them, and prints for each how its process ended.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from edge_agent.serving import slots

CALLS = ("open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.truncate", "os.rmdir", "shutil.copyfile")
NEW = {"version": 2, "digest": "", "variant": "float-32", "manifest": "2" * 64}


def act(folder: Path, action: str) -> None:
    if action == "stage":
        source = folder / "source"
        slots.stage(folder, source, {**NEW, "digest": slots.file_digest(source)})
    elif action == "copy":  # where the file system has no second names
        os.link = _no_link
        act(folder, "stage")
    elif action == "switch":
        slots.switch(folder, "b")
    elif action == "pin":
        slots.pin(folder, 1)
    elif action == "pin-barred":
        slots.pin(folder, 2)
    else:
        getattr(slots, action.split("-", maxsplit=1)[0])(folder)


def _no_link(source, target):
    raise OSError("no links here")


def arm(folder: Path, last: int) -> None:
    """Ends this process at the nth call that touches the folder, before it is made."""
    calls = [0]

    def count() -> None:
        calls[0] += 1
        if calls[0] == last:
            os._exit(9)

    def heard(event: str, args: tuple) -> None:
        if event in CALLS and str(args[0]).startswith(str(folder)):
            count()

    real = os.fsync

    def fsync(handle: int) -> None:
        count()
        real(handle)

    os.fsync = fsync
    sys.addaudithook(heard)


def main() -> None:
    base, action = Path(sys.argv[1]), sys.argv[2]
    status = None
    for number in range(1, 200):
        folder = base.with_name(f"{base.name}.{number}")
        shutil.copytree(base, folder)
        child = os.fork()
        if child == 0:
            arm(folder, number)
            act(folder, action)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(number, status)
        if status != 9:
            break
    sys.exit(status)


if __name__ == "__main__":
    main()
