"""`bitfleet simulate` and `bitfleet sweep`."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coordinator.front.again import command_of, told_how_to_go_on
from wire.errors import ConfigError
from wire.settings import check_json, leave_json

if TYPE_CHECKING:
    from coordinator.recipe import Recipe

__all__ = ["add_commands"]

_ORDERED = ("recipes", "seeds", "task", "devices", "clients_per_round", "rounds", "set")
_ANEW = ("workers", "ray", "dir", "json", "plot")  # no run's folder knows them

Facts = Mapping[str, Any]
Command = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]


def add_commands(command: Command) -> None:
    """Adds both commands to a parser; `command` takes a name, what to run and one line about it."""
    one = command("simulate", _simulate, "run a recipe with virtual devices, all on this machine")
    one.add_argument("--recipe", default="", help="a recipe that ships, or a .toml file (fedavg)")
    one.add_argument("--seed", type=int, default=None)
    one.add_argument("--resume", action="store_true", help="go on with the run in --dir, or the newest in ./runs")
    several = command("sweep", _sweep, "simulate recipes x seeds and draw them side by side")
    several.add_argument("--recipes", required=True, metavar="A,B", help="recipes that ship, or .toml files")
    several.add_argument("--seeds", default="1,2,3", metavar="1,2,3", help="%(default)s")
    for parser in (one, several):
        _shared(parser)


def _shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", default="", help="the recipe's own unless given")
    parser.add_argument("--devices", type=int, default=0, help="virtual devices; as many as a round needs if left out")
    parser.add_argument("--clients-per-round", type=int, default=0, help="how many devices a round needs")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting")
    parser.add_argument("--workers", type=int, default=0, help="processes that train; 0: this one (%(default)s)")
    parser.add_argument("--ray", default="", metavar="ADDRESS", help="train on this Ray cluster instead")
    parser.add_argument("--dir", type=Path, default=None, help="where files go (a new folder under ./runs)")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="leave the figures here")
    parser.add_argument("--plot", type=Path, default=None, metavar="FILE.png", help="leave a picture here")


def _simulate(options: argparse.Namespace) -> int:
    from simulation.plots import check_plots  # noqa: PLC0415
    from simulation.progress import shown_progress  # noqa: PLC0415
    from simulation.run import Order, simulate  # noqa: PLC0415

    check_plots(options.plot)
    check_json(options.json)
    folder = _folder(options)
    if options.resume:
        order = _left(options, folder)
    else:
        recipe = _recipe(options, options.recipe or "fedavg", options.seed)
        order = Order(recipe, folder, options.devices, options.workers, options.ray)
    print(f"files in {folder}", flush=True)
    command = _again(options, folder, ("simulate", "--resume"), _ANEW)
    with told_how_to_go_on(command, (folder / "home" / "fleet.sqlite").exists), shown_progress() as watch:
        figures = simulate(order, watch)
    _leave(options, [(order.recipe.name, figures)], figures)
    _print(figures)
    return 0 if figures["status"] == "done" else 1


def _sweep(options: argparse.Namespace) -> int:
    from simulation.plots import check_plots  # noqa: PLC0415
    from simulation.sweep import Sweep, sweep, table_of  # noqa: PLC0415

    check_plots(options.plot)
    check_json(options.json)
    folder = _folder(options)
    recipes = tuple(_recipe(options, name.strip(), None) for name in options.recipes.split(","))
    ordered = Sweep(recipes, _seeds(options.seeds), folder, options.devices, options.workers, options.ray)
    print(f"files in {folder}", flush=True)
    with told_how_to_go_on(_again(options, folder, ("sweep",), (*_ORDERED, *_ANEW))):
        figures = sweep(ordered)
    rows = table_of(figures)
    _leave(options, [(f"{each['recipe']}-{each['seed']}", each) for each in figures], {"table": rows, "runs": figures})
    _print_rows(rows)
    return 0 if all(each["status"] == "done" for each in figures) else 1


def _again(options: argparse.Namespace, folder: Path, words: tuple[str, ...], names: tuple[str, ...]) -> str:
    """Returns the command of these words that goes on in a folder, with those of the named options that were given."""
    given = {**vars(options), "dir": folder}
    return command_of(words, {name: given[name] for name in names})


def _recipe(options: argparse.Namespace, name: str, seed: int | None) -> Recipe:
    from coordinator.recipe import ordered_recipe  # noqa: PLC0415

    words = {"task": options.task, "goal": options.clients_per_round, "rounds": options.rounds, "seed": seed}
    return ordered_recipe(name, options.set, **words)


def _left(options: argparse.Namespace, folder: Path) -> Any:
    """Returns the order of the run in a folder."""
    from simulation.run import left_order  # noqa: PLC0415

    words = ("recipe", "task", "devices", "clients_per_round", "rounds", "set")
    given = [word for word in words if vars(options)[word]]
    if given or options.seed is not None:
        name = (given or ["seed"])[0].replace("_", "-")
        raise ConfigError(f"--resume with --{name}", remedy="a run goes on with the recipe that it began with")
    return left_order(folder, options.workers, options.ray)


def _folder(options: argparse.Namespace) -> Path:
    if options.dir is not None:
        return Path(options.dir).absolute()
    runs = Path("runs").absolute()
    if not vars(options).get("resume"):
        return runs / time.strftime("%Y%m%d-%H%M%S")
    homes = (path.parents[1] for path in runs.glob("*/home/fleet.sqlite"))
    found = sorted(folder for folder in homes if (folder / "devices").is_dir())
    if not found:
        raise ConfigError(f"there is no simulated run in {runs}", remedy="name its folder with --dir")
    return found[-1]


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as exc:
        raise ConfigError(f"--seeds {text}", remedy="write whole numbers with commas between: 1,2,3") from exc


def _leave(options: argparse.Namespace, runs: Sequence[tuple[str, Facts]], facts: Facts) -> None:
    leave_json(options.json, facts)
    if options.plot:
        from simulation.plots import curve_of, draw  # noqa: PLC0415

        draw([curve_of(label, _ledger(Path(figures["run_dir"]))) for label, figures in runs], options.plot)
        print(f"picture in {options.plot}")


def _ledger(folder: Path) -> list[dict[str, Any]]:
    with (folder / "ledger.jsonl").open() as lines:
        return [json.loads(line) for line in lines]


def _print(figures: Mapping[str, Any]) -> None:
    left_out = ("accuracy_by_round", "levels_by_round", "personal")
    for name, value in figures.items():
        if name not in left_out:
            print(f"{name:18} {'unknown' if value is None else value}")


def _print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from coordinator.front.plain import plain  # noqa: PLC0415

    table = Table(*rows[0])
    for row in rows:
        shown = (f"{value:.4f}" if isinstance(value, float) else value for value in row.values())
        table.add_row(*(plain("unknown" if value is None else value) for value in shown))
    Console().print(table)
