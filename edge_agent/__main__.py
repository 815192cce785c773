"""`bitfleet-agent run | status | leave | models | infer | bench | rollback | pin`, each with --config FILE."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from edge_agent.config import AgentConfig, load_config
from edge_agent.service import leave, run, running, status
from wire.errors import BitfleetError

__all__ = ["main"]

_DEFAULT_CONFIG = Path("/etc/bitfleet/agent.toml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0 fine, 1 refused, 2 wrong words."""
    parser = argparse.ArgumentParser(prog="bitfleet-agent", description="The Bitfleet agent of one device.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run_words = commands.add_parser("run", help="join the fleet and stay")
    run_words.add_argument("--for-s", type=float, default=None, metavar="S", help="stop after S seconds")
    status_words = commands.add_parser("status", help="say what this device does")
    status_words.add_argument("--json", action="store_true", help="as JSON")
    leave_words = commands.add_parser("leave", help="leave the fleet and delete the device's state, not its data")
    leave_words.add_argument("--yes", action="store_true", help="do not ask")
    for words in (run_words, status_words, leave_words, *_model_words(commands)):
        words.add_argument("--config", type=Path, default=_DEFAULT_CONFIG, metavar="FILE", help="default %(default)s")
    options = parser.parse_args(arguments)
    try:
        config = load_config(options.config)
        if options.command == "run":
            signal.signal(signal.SIGTERM, _end)
            return run(config, options.for_s)
        if options.command == "leave":
            return leave(config, options.yes)
        return status(config, options.json) if options.command == "status" else _about_models(config, options)
    except BitfleetError as exc:
        print(f"bitfleet-agent: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _model_words(commands: Any) -> Iterator[argparse.ArgumentParser]:
    """Adds the commands that look at models, and yields each."""
    about = {
        "models": "say which models are here and what became of the last offer",
        "infer": "answer the examples in a .npy, .npz or .csv file with the model that serves",
        "bench": "measure the offered variants on this board; with the agent running, all of them",
        "rollback": "go back to the healthy model before this one",
        "pin": "have one version serve, whatever is offered; 0 ends that",
    }
    for name, meaning in about.items():
        words = commands.add_parser(name, help=meaning)
        if name == "infer":
            words.add_argument("file", type=Path, metavar="FILE")
        if name == "pin":
            words.add_argument("version", type=int, metavar="VERSION")
        if name == "bench":
            words.add_argument(
                "--wait-s", type=float, default=600.0, metavar="S", help="how long to wait for the agent"
            )
        words.add_argument("--json", action="store_true", help="as JSON")
        yield words


def _about_models(config: AgentConfig, options: argparse.Namespace) -> int:
    from edge_agent.serving import commands  # noqa: PLC0415

    calls: dict[str, Callable[[], dict[str, Any]]] = {
        "models": lambda: commands.show_models(config),
        "infer": lambda: commands.infer(config, options.file),
        "bench": lambda: commands.bench(config, bool(running(config.state_dir)), options.wait_s, time.monotonic),
        "rollback": lambda: commands.roll_back(config),
        "pin": lambda: commands.pin_version(config, options.version),
    }
    facts = calls[options.command]()
    print(json.dumps(facts, indent=2) if options.json else commands.shown(facts))
    return 0


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
