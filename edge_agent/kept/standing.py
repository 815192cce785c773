"""What a device remembers of itself across reboots: its session number and the last round it finished in each run."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge_agent.gate import unreadable, unwritable
from wire.events import log_event
from wire.messages.reports import Ask
from wire.pieces.assembly import write_whole

__all__ = ["Standing", "load_standing", "read_standing", "save_standing"]

_FILE = "standing.json"
_MOST_RUNS = 20


@dataclass(frozen=True, slots=True)
class Standing:
    """`done` maps a run to the newest round whose update was settled by a receipt; who settled last comes last."""

    session: int = 0
    done: Mapping[str, int] = field(default_factory=dict)

    def settled(self, run: str, number: int) -> bool:
        """Tells whether the device has nothing left to do for this round."""
        return self.done.get(run, -1) >= number

    def objections(self, run: str, number: int, waiting: Collection[tuple[str, int]], kept: bool) -> tuple[Ask, ...]:
        """Returns what to say to a plan of a round that is settled here; nothing where its update waits to be sent.

        Nothing either if it is of the newest one and was `kept` by the broker: that is how a plan stays when a round
        went well. Any other plan comes from a coordinator that does not know of this device's update, and waits.
        """
        newest = self.done.get(run, -1)
        if (run, number) in waiting or newest < number or (kept and newest == number):
            return ()
        reason = f"round {newest} of run {run} is done here"
        log_event("declined", run=run, round=number, code="E-ROUND-DONE", reason=reason)
        return (Ask("decline", run=run, round=number, code="E-ROUND-DONE", reason=reason, done=newest),)

    def started(self) -> Standing:
        """Returns the standing of a new start."""
        return replace(self, session=self.session + 1)

    def settle(self, run: str, number: int) -> Standing:
        """Returns the standing after a receipt; the oldest runs are forgotten."""
        others = {name: newest for name, newest in self.done.items() if name != run}
        done = {**others, run: max(number, self.done.get(run, -1))}
        return replace(self, done=dict(list(done.items())[-_MOST_RUNS:]))


def load_standing(folder: Path) -> Standing:
    """Returns the standing; a damaged file is moved aside and a new one begins.

    One that cannot be read now is not damaged: StateError, and the next start finds it as it was.
    """
    standing = read_standing(folder)
    if standing is None:
        (folder / _FILE).replace((folder / _FILE).with_suffix(".damaged"))
        return Standing()
    return standing


def read_standing(folder: Path) -> Standing | None:
    """Returns the standing, or None if the file is damaged; moves nothing. StateError if it cannot be read."""
    try:
        table = json.loads((folder / _FILE).read_text())
        return Standing(int(table["session"]), {str(run): int(number) for run, number in table["done"].items()})
    except FileNotFoundError:
        return Standing()
    except OSError as exc:
        raise unreadable(folder / _FILE, exc) from exc
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def save_standing(folder: Path, standing: Standing, durable: bool = True) -> None:
    """Writes the standing; StateError if the disk does not take it."""
    try:
        data = json.dumps({"session": standing.session, "done": dict(standing.done)})  # unsorted: runs keep their order
        write_whole(folder / _FILE, data.encode(), durable)
    except OSError as exc:
        raise unwritable(folder / _FILE, exc) from exc
