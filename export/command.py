"""`bitfleet export`: from a run to files, through the gate, with the report."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from wire.errors import ConfigError
from wire.settings import check_json, check_range, leave_json

if TYPE_CHECKING:
    from export.ladder.mixed import Budget

__all__ = ["add_commands"]

_BITS = (2, 8)
_MOST_BYTES = 1 << 40
_PACKING = "4 and 2 bits in bit planes, or in ONNX's own types for newer runtimes (%(default)s)"

Command = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
Give = Callable[[argparse.ArgumentParser], object]


def add_commands(command: Command, home: Give) -> None:
    """Adds the command to a parser, loading nothing heavy; `command` takes a name, what to run and a line about it.

    `home` adds the option of that name, as the coordinator's other commands have it.
    """
    own = command("export", _export, "write the trained model as ONNX files at several bit-widths")
    own.add_argument(
        "model", nargs="?", default="", metavar="RUN|FOLDER|CHECKPOINT|MEMORY", help="the newest ended run"
    )
    home(own)
    own.add_argument("--bits", default="8,6,5,4,3,2", help="widths (%(default)s)")
    own.add_argument("--profile", choices=("int8", "float", "both"), default="both", help="arithmetic (%(default)s)")
    own.add_argument("--packing", choices=("planes", "native"), default="planes", help=_PACKING)
    own.add_argument("--nested", action="store_true", help="one bundle from whose prefix any width can be cut")
    own.add_argument("--calibration", type=int, default=256, metavar="N", help="examples that choose (%(default)s)")
    own.add_argument("--task", default="", help="whose test examples measure it; the run's own if left out")
    own.add_argument("--max-bytes", type=int, metavar="N", help="one more file: widths by layer, at most N bytes")
    own.add_argument("--max-drop", type=float, metavar="P", help="one more file: the smallest within P points")
    own.add_argument("--out", type=Path, metavar="DIR", help="where files go (exports/RUN)")
    own.add_argument("--json", type=Path, metavar="FILE", help="leave the report here too")


def _export(options: argparse.Namespace) -> int:
    widths = _widths(options.bits)
    _check(options)
    try:
        from export.ladder.make import Wish, make_ladder  # noqa: PLC0415
        from export.ladder.own import SUFFIX, read_own  # noqa: PLC0415
        from export.ladder.report import markdown, write_report  # noqa: PLC0415
        from export.ladder.run import read_source  # noqa: PLC0415
    except ImportError as exc:
        raise ConfigError(f"export needs {exc.name}", remedy="pip install -r requirements.txt") from exc
    profiles = ("int8", "float") if options.profile == "both" else (options.profile,)
    path = _found(options.model, options.home.expanduser())
    source = (read_own if path.suffix == SUFFIX else read_source)(path, options.task, options.calibration)
    out = options.out or Path("exports") / source.run
    if path.suffix == SUFFIX and not source.tables:
        print("no centres in this memory: a model in full precision, or still in its warm start (personal.warm_rounds)")
    wish = Wish(widths, profiles, options.nested, _budget(options), packing=options.packing)
    report = make_ladder(source, wish, out, lambda text: print(text, flush=True))
    write_report(report, out)
    leave_json(options.json, report)
    print(markdown(report), end="")
    print(f"\n{len(report['variants'])} files in {out}")
    return 0 if report["variants"] and not report["refused"] else 1


def _check(options: argparse.Namespace) -> None:
    """Raises ConfigError for what can be told before anything heavy is loaded."""
    check_range("--calibration", options.calibration, 1, 1_000_000)
    if None not in (options.max_bytes, options.max_drop):
        raise ConfigError("--max-bytes and --max-drop", remedy="give one of them")
    if options.max_bytes is not None:
        check_range("--max-bytes", options.max_bytes, 1, _MOST_BYTES)
    if options.max_drop is not None:
        check_range("--max-drop", options.max_drop, 0, 100)
    check_json(options.json)


def _found(text: str, home: Path) -> Path:
    """Returns the folder or file that was named: a path, or a run of the home."""
    runs = home / "runs"
    if text:
        return Path(text) if Path(text).exists() else runs / text
    found = sorted(runs.glob("*/model.blob"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise ConfigError(f"there is no ended run in {runs}", remedy="name a run, a folder or a checkpoint")
    return found[-1].parent


def _widths(text: str) -> tuple[int, ...]:
    try:
        bits = {int(part) for part in text.split(",")}
    except ValueError as exc:
        raise ConfigError(f"--bits {text!r}", remedy="give whole numbers with commas between them") from exc
    for one in bits:
        check_range("--bits", one, *_BITS)
    return tuple(sorted(bits, reverse=True))


def _budget(options: argparse.Namespace) -> Budget | None:
    from export.ladder.mixed import Budget  # noqa: PLC0415

    if options.max_bytes is not None:
        return Budget(most_bytes=options.max_bytes)
    return None if options.max_drop is None else Budget(most_drop=options.max_drop / 100)
