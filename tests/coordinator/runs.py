"""A database with an open run, and recipes that are quick."""

from __future__ import annotations

import json
from pathlib import Path

from coordinator.recipe import Recipe, load_recipe
from coordinator.state.database import Database, open_database

__all__ = ["RUN", "echo_recipe", "ledger", "new_run"]

RUN = "run-1"


def echo_recipe(*settings: str, size: int = 60) -> Recipe:
    return load_recipe("echo", [f'model="vector-{size}"', *settings])


def new_run(folder: Path, recipe: Recipe | None = None) -> Database:
    database = open_database(folder / "fleet.sqlite")
    with database.change():
        stored = json.dumps((recipe or echo_recipe()).to_json())
        query = "INSERT INTO runs (run, recipe, status, created, simulated) VALUES (?, ?, 'open', 0, 1)"
        database.write(query, RUN, stored)
    return database


def ledger(database: Database, event: str) -> list[dict]:
    return [dict(line) for line in database.ledger(RUN) if line["event"] == event]
