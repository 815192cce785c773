"""Runs one benchmark: `python -m benchmarks NAME [--json FILE] [its own options]`; without NAME it lists them.

Exit status: 0 all requirements met, 1 one missed, 2 there is no such benchmark.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.conditions import conditions
from benchmarks.result import Result, to_json

__all__ = ["available", "main"]

HERE = Path(__file__).parent


def available() -> dict[str, str]:
    """Returns what each benchmark measures, by name; nothing is imported for it."""
    paths = sorted([*HERE.glob("*.py"), *HERE.glob("*/__init__.py"), *HERE.glob("peers/*.py")])
    names = {path: path.parent if path.name == "__init__.py" else path.with_suffix("") for path in paths}
    trees = {".".join(names[path].relative_to(HERE).parts): ast.parse(path.read_text()) for path in paths}
    return {name: (ast.get_docstring(tree) or "").split("\n")[0] for name, tree in trees.items() if _runs(tree)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line names and returns the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures one of the project's figures again.")
    parser.add_argument("name", nargs="?", metavar="NAME", help="left out: lists the benchmarks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also writes the record to FILE")
    asked, options = parser.parse_known_args(arguments)
    if asked.name not in available():
        return _list(asked.name)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # also for children that load the runtime by hand
    before = conditions()
    result: Result = import_module(f"benchmarks.{asked.name}").run(options)
    record = to_json(asked.name, before, result)
    _show(record)
    if asked.json:
        asked.json.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if result.ok else 1


def _runs(tree: ast.Module) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body)


def _list(unknown: str | None) -> int:
    for name, says in available().items():
        print(f"{name:13} {says}")
    if unknown is None:
        return 0
    print(f"there is no benchmark {unknown!r}; those above are all", file=sys.stderr)
    return 2


def _show(record: dict[str, Any]) -> None:
    for part in ("conditions", "figures"):
        print(f"{part}:")
        for name, value in record[part].items():
            print(f"  {name:40} {_text(value)}")
    print("requirements:")
    for each in record["requirements"]:
        verdict = "ok" if each["ok"] else "MISSED"
        print(f"  {each['name']:40} {each['limit']:>10}   {_text(each['value'])}   {verdict}")


def _text(value: object) -> str:
    if value is None:
        return "unknown"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main())
