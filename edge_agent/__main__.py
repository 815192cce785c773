"""`bitfleet-agent run | status | leave`, each with --config FILE."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from edge_agent.config import load_config
from edge_agent.service import leave, run, status
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
    for words in (run_words, status_words, leave_words):
        words.add_argument("--config", type=Path, default=_DEFAULT_CONFIG, metavar="FILE", help="default %(default)s")
    options = parser.parse_args(arguments)
    try:
        config = load_config(options.config)
        if options.command == "run":
            signal.signal(signal.SIGTERM, _end)
            return run(config, options.for_s)
        return status(config, options.json) if options.command == "status" else leave(config, options.yes)
    except BitfleetError as exc:
        print(f"bitfleet-agent: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _end(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
