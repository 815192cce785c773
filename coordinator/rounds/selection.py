"""Among whom a round selects, or what it waits for: devices that are here, and not at work for an earlier round."""

from __future__ import annotations

from coordinator.recipes.rounding import rounded_up
from coordinator.recipes.sections import Devices
from coordinator.run_state import RunState

__all__ = ["eligible", "quorum_of"]

_MOST_NAMED = 3
_AT_WORK = "training"  # who still fetches may wait for what is not to be had any more: the next plan frees it


def quorum_of(want: Devices) -> int:
    """Returns how many devices are enough for a round."""
    return max(1, rounded_up(want.quorum * want.goal))


def eligible(state: RunState, waited: bool) -> tuple[list[str], str]:
    """Returns those among whom the round selects; nobody, and why, as long as it has to wait.

    `waited` says that it need not wait for the goal any longer. Where too few are free even then, those at work for
    earlier rounds are asked too, rather than nobody for ever.
    """
    want = state.planner.recipe.devices
    here, quorum = state.registry.eligible(state.planner.recipe.task), quorum_of(want)
    why = f"{len(here)} of {want.goal} devices are here{_with_another_task(state)}"
    enough = f"after {want.selection_timeout_s:g} s {quorum} are enough"
    if len(here) < want.goal and not waited:
        return [], f"{why}, {enough}"
    free = _free(state, here)
    if len(free) >= quorum:
        return free, ""
    if waited and len(here) >= quorum:
        return here, ""
    busy = f", {len(here) - len(free)} of them at work for earlier rounds" if len(here) >= want.goal else ""
    return [], f"{why}{busy}, {enough}"


def _with_another_task(state: RunState) -> str:
    """Returns how many others are here for nothing: the usual cause is a slip in a device's configuration."""
    others = state.registry.tasks_besides(state.planner.recipe.task)
    named = ", ".join(sorted(set(others))[:_MOST_NAMED])
    return f" ({len(others)} more with another task: {named})" if others else ""


def _free(state: RunState, here: list[str]) -> list[str]:
    """Leaves out who is at work for an earlier round whose updates are welcome: a new plan would end that work."""
    want, devices = state.planner.recipe.devices, state.registry.devices
    if want.late != "fold":
        return here
    invitations = state.book.newest_invitations(max(0, state.number - want.max_staleness))
    owing = {device for device, number, outcome in invitations if not outcome and state.late_welcome(number)}
    return [device for device in here if device not in owing or devices[device].state.state != _AT_WORK]
