"""A whole federation on this machine: a broker, a coordinator and agents as real processes, watched from outside."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from coordinator.broker import Broker, start_broker
from coordinator.front.ladder import Ladder, policy_of, show_ladder
from coordinator.front.live import Progress, watch_run
from coordinator.front.report import figures_of
from coordinator.home import keys_of
from coordinator.recipe import Recipe
from coordinator.recipes.personal import own_personal
from coordinator.state.database import open_database
from models.fetch import cached, fetch
from models.tasks import dataset_of
from wire.errors import DataError, StateError
from wire.pipe import die_with_parent, python_module
from wire.settings import check_json, leave_json, make_folder, usable

__all__ = ["DemoOptions", "agent_config", "provide_data", "run_demo", "start_python"]

FLEET = "demo"
_FETCHED = ("fashion", "watch")


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What to run, on which broker, where the files go, and where the figures."""

    recipe: Recipe
    broker: str
    folder: Path
    json: Path | None = None


def run_demo(options: DemoOptions) -> int:
    """Runs the federation to its end, shows it, and leaves the figures; returns the exit status."""
    check_json(options.json)
    provide_data(options.recipe)
    home, logs = options.folder / "home", options.folder / "logs"
    for folder in (home, logs, options.folder / "broker"):
        make_folder(folder, "--dir")
    keys = keys_of(home, "--dir")
    recipe = options.folder / "recipe.json"
    with usable(recipe, "--dir"):
        recipe.write_text(json.dumps(options.recipe.to_json(), indent=2))
    began_s = time.monotonic()
    with ExitStack() as stack:
        broker = stack.enter_context(start_broker(options.broker, options.folder / "broker", option="--dir"))
        words = ["--home", str(home), "--fleet", FLEET, "--broker", broker.url, "--recipe", str(recipe)]
        progress = Progress(home / "fleet.sqlite", options.recipe, broker.kind)  # before there is a new run to show
        serve = stack.enter_context(start_python(logs / "coordinator.log", "coordinator", "serve", *words))
        for at in range(options.recipe.devices.goal):
            stack.enter_context(_agent(options, broker, at, keys))
        watch_run(progress, serve)
        if serve.returncode:
            tail = (logs / "coordinator.log").read_text().strip().splitlines()[-5:]
            raise StateError("the coordinator ended early:\n  " + "\n  ".join(tail), remedy=f"see {logs}")
        facts = _facts(options, broker.kind, time.monotonic() - began_s)
        _show(facts, logs)
        facts["exports"] = _exports(options, broker.url, facts["run"])
    leave_json(options.json, facts)
    return 0


def _exports(options: DemoOptions, broker: str, run: str) -> list[dict[str, Any]]:
    """Returns what every device runs in the end; a task without data trains nothing that could be exported."""
    if dataset_of(options.recipe.task) is None:
        return []
    print("\nexporting at 8 to 2 bits and rolling out: one board first, then a third, then all ...", flush=True)
    ladder = Ladder(options.folder / "home", options.folder, options.folder / "logs", FLEET, broker)
    rows = ladder.climb(run)
    show_ladder(rows)
    print(f"  files      {options.folder / 'exports'}  (ONNX, report.md, report.json)")
    return rows


@contextmanager
def start_python(log: Path, module: str, *words: str, within: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a module with its output in a log; ends it kindly, then firmly, when the block is left.

    `within` are words to put before the command, such as those that enter a network namespace.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*within, *python_module(module, *words)],
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def agent_config(
    device: str,
    broker: str,
    folder: Path,
    data: Mapping[str, Any],
    key: str = "",
    *,
    personal: Mapping[str, Any] = MappingProxyType({}),
    model_key: str = "",
    model: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Returns the TOML of one agent of the demo's fleet."""
    lines = [
        f'device = "{device}"',
        f'fleet = "{FLEET}"',
        f'broker = "{broker}"',
        f"state_dir = {json.dumps(str(folder), ensure_ascii=False)}",
    ]
    lines += [f'coordinator_key = "{key}"'] if key else []
    lines += [f'model_keys = ["{model_key}"]'] if model_key else []
    lines += ["", "[data]", *(f"{name} = {json.dumps(value)}" for name, value in data.items())]
    for section, table in (("personal", personal), ("model", model)):
        if table:
            lines += ["", f"[{section}]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    lines += ["", "[train]", "nice = 0"]  # last: who takes this text may add to it
    return "\n".join([*lines, ""])


@contextmanager
def _agent(options: DemoOptions, broker: Broker, at: int, keys: tuple[str, str]) -> Iterator[None]:
    device, recipe = f"device-{at:02d}", options.recipe
    data: dict[str, Any] = {"task": recipe.task}
    if dataset_of(recipe.task) is not None:
        share = {"split": recipe.split_rule, "parts": recipe.devices.goal, "part": at, "seed": recipe.split.seed}
        data |= share | ({"examples": recipe.split.examples} if recipe.split.examples else {})
    config = options.folder / f"{device}.toml"
    own: dict[str, Any] = {"personal": own_personal(recipe.personal, at), "model_key": keys[1]}
    if dataset_of(recipe.task) is not None:
        own["model"] = policy_of(recipe.task, recipe.model, at)
    config.write_text(agent_config(device, broker.url, options.folder / device, data, keys[0], **own))
    with start_python(options.folder / "logs" / f"{device}.log", "edge_agent", "run", "--config", str(config)):
        yield


def provide_data(recipe: Recipe) -> None:
    """Fetches the data of a recipe's task where that has not been done."""
    name = dataset_of(recipe.task)
    if name in _FETCHED:
        try:
            cached(name)
        except DataError:
            print(f"fetching {name} ...", flush=True)
            fetch(name)


def _facts(options: DemoOptions, broker: str, seconds: float) -> dict[str, Any]:
    home = options.folder / "home"
    database = open_database(home / "fleet.sqlite", read_only=True)
    figures = figures_of(database.ledger(database.newest_run()))
    folder = home / "runs" / figures["run"]
    spec = json.loads((folder / "spec.json").read_text())
    params = sum(_count(tensor["shape"]) for part in ("trainable", "frozen") for tensor in spec[part])
    refused = figures["refused"]
    return {
        **figures,
        "broker": broker,
        "devices": options.recipe.devices.goal,
        "params": params,
        "seconds": round(seconds, 2),
        "refused": sum(refused.values()),
        "refused_by_code": refused,
        "run_dir": str(folder),
    }


def _count(shape: list[int]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def _show(facts: Mapping[str, Any], logs: Path) -> None:
    accuracy = "none (no data)" if facts["accuracy"] is None else f"{facts['accuracy']:.4f} on the held-out test set"
    print(f"""
{facts["rounds"]} rounds of {facts["recipe"]} on {facts["task"]}, {facts["devices"]} devices, {facts["broker"]}
  accuracy   {accuracy}
  up         {facts["bytes_up"]:,} bytes from all devices ({facts["params"]:,} parameters)
  down       {facts["bytes_down"]:,} bytes to all devices
  refused    {facts["refused"]} updates
  time       {facts["seconds"]:.1f} s
  model      {facts["model_digest"]}
  files      {facts["run_dir"]}  (model.blob, spec.json, report.json, ledger.jsonl)
  logs       {logs}""")
