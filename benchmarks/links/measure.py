"""One recipe, a few rounds, over slow links: real agents, a real coordinator, a real broker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.claims.trial import Trial, recipe_of
from benchmarks.fleet.ledger import Line, await_published, ledger
from benchmarks.fleet.processes import Fleet
from benchmarks.links.linked import Linked, linked
from benchmarks.links.rounds import link_figures, round_parts
from coordinator.front.demo import FLEET, agent_config, provide_data, start_python
from coordinator.recipe import Recipe

__all__ = ["PARTS", "measure"]

PARTS = 20
"""Into so many parts the data are split; the fleet has the first of them."""

_LINGER_S = 900.0


def measure(trial: Trial, seed: int, folder: Path, kind: str = "auto", how: str = "auto") -> dict[str, Any]:
    """Returns the figures of a trial's rounds; what an interrupted one left in the folder is thrown away."""
    recipe, place = recipe_of(trial, seed), folder / "fleet"
    shutil.rmtree(place, ignore_errors=True)
    provide_data(recipe)
    before = _load()
    with linked(place, trial.devices, kind, how) as links:
        lines = _run(links, recipe)
        broker = links.place.broker.kind
    return {
        **link_figures(round_parts(lines)),
        "accuracy": _accuracy(lines),
        "links": links.how,
        "broker": broker,
        "load_average_before": before,
        "load_average_after": _load(),
    }


def _run(links: Linked, recipe: Recipe) -> list[Line]:
    """Runs the federation to its end and returns its ledger."""
    place = links.place
    coordinator = _serve(place, recipe)
    for at, (within, url) in enumerate(zip(links.within, links.urls, strict=True)):
        device = f"device-{at:02d}"
        config = place.folder / f"{device}.toml"
        config.write_text(_config(place, recipe, at, url))
        log, words = place.folder / f"{device}.log", ("run", "--config", str(config))
        place.devices.append(place.stack.enter_context(start_python(log, "edge_agent", *words, within=within)))
    for count in range(1, recipe.rounds + 1):
        await_published(place, coordinator, count)
    coordinator.wait(60)
    return ledger(place.home)


def _serve(place: Fleet, recipe: Recipe) -> subprocess.Popen[bytes]:
    path = place.folder / "recipe.json"
    path.write_text(json.dumps(recipe.to_json()))
    where = ("--home", str(place.home), "--fleet", FLEET, "--broker", place.broker.url)
    return place.start("coordinator", "serve", *where, "--recipe", str(path), log="coordinator")


def _config(place: Fleet, recipe: Recipe, at: int, url: str) -> str:
    """Returns an agent's settings. Its child stays over the rounds: ten that load torch at once on two cores are not
    what ten devices would do."""
    device, split = f"device-{at:02d}", recipe.split
    data = {"task": recipe.task, "split": recipe.split_rule, "parts": PARTS, "part": at, "seed": split.seed}
    data |= {"examples": split.examples} if split.examples else {}
    text = agent_config(device, url, place.folder / device, data, place.key)
    return text.replace("[train]\n", f"[train]\nlinger_s = {_LINGER_S}\n", 1)


def _accuracy(lines: list[Line]) -> float | None:
    found = [line["accuracy"] for line in lines if line["event"] == "evaluated" and "accuracy" in line]
    return found[-1] if found else None


def _load() -> list[float]:
    return [round(load, 2) for load in os.getloadavg()]
