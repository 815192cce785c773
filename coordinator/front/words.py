"""The words and options of `bitfleet rollout`, `manifest` and `keys`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from coordinator.front import rollouts

__all__ = ["add_rollout_commands"]

_Words: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # not subscriptable while it runs
Command = Callable[[_Words, str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
Give = Callable[[argparse.ArgumentParser], object]


def add_rollout_commands(words: _Words, command: Command, home: Give, link: Callable[..., object]) -> None:
    """Adds the commands. `home` and `link` add the options of a command that reads the home, or uses the broker.

    `link` with `fleet` = None is for one to which the home tells the fleet.
    """
    rollout = _group(words, "rollout", "a new model to the devices: canary, a third, all")
    start = command(rollout, "start", rollouts.start_command, "publish an export and roll it out")
    start.add_argument("folder", nargs="?", type=Path, default=None, metavar="EXPORT_DIR")
    start.add_argument("--content", type=int, default=0, metavar="VERSION", help="the content of an older version")
    start.add_argument("--devices", default="", metavar="A,B", help="for these, in this order (all that were seen)")
    start.add_argument("--canary", default="", metavar="NAME", help="the device that gets it first")
    start.add_argument("--stage-s", type=float, default=3600.0, help="how long a stage waits (%(default)s)")
    start.add_argument("--days", type=int, default=365, help="how long the manifest holds (%(default)s)")
    start.add_argument("--key", type=Path, default=None, metavar="FILE", help="sign with this key, not the home's")
    start.add_argument("--least-version", type=int, default=1, metavar="N", help="for a home that lost its database")
    start.add_argument("--replace-model", action="store_true", help="another model than the last one is meant")
    resume = command(rollout, "resume", rollouts.resume_rollout_command, "go on with a roll-out")
    abort = command(rollout, "abort", rollouts.abort_command, "end a roll-out; who has the model keeps it")
    for one in (start, resume):
        one.add_argument("--continue-without-late", action="store_true", help="late devices are in nobody's way")
        one.add_argument("--continue-without-failed", action="store_true", help="nor are failed ones")
    serve = command(rollout, "serve", rollouts.serve_rollouts_command, "stay for late devices, until it is stopped")
    link(start)
    for one in (resume, abort, serve):
        link(one, fleet=None)
    status = command(rollout, "status", rollouts.rollout_status_command, "where a roll-out stands, and why")
    status.add_argument("--rollout", default="", metavar="NAME", help="the newest if left out")
    home(status)
    home(command(rollout, "pause", rollouts.pause_command, "offer it to nobody more for now"))
    manifest = _group(words, "manifest", "the versions that were published here")
    show = command(manifest, "show", rollouts.manifest_show_command, "one version as JSON")
    show.add_argument("version", type=int, metavar="VERSION")
    home(show)
    home(command(manifest, "list", rollouts.manifest_list_command, "all versions"))
    keys = command(words, "keys", rollouts.keys_command, "what goes into a device's configuration")
    keys.add_argument("--key", type=Path, default=None, metavar="FILE", help="the key for models, made if need be")
    home(keys)


def _group(words: _Words, name: str, text: str) -> _Words:
    group = words.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    return group.add_subparsers(dest="word", required=True, metavar="WORD")
