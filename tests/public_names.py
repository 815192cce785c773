"""The names that other code may rely on, pinned in public_names.txt: `python -m tests.public_names --write` renews it.

A name that appears or goes shows up as one line of the diff, so that it is meant and lands in the CHANGELOG.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PINNED = Path(__file__).with_name("public_names.txt")
PACKAGES = ("wire", "models", "edge_agent", "coordinator", "export", "simulation")


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yields every module of ours as its path from the root and its tree, in order."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(), filename=str(path))


def exported(tree: ast.Module) -> list[str] | None:
    """Returns what `__all__` says; None where there is none."""
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return [str(name) for name in ast.literal_eval(node.value)]  # type: ignore[attr-defined]
    return None


def public_names() -> str:
    """Returns the text to pin: one `module.name` a line."""
    lines = []
    for path, tree in modules():
        module = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        lines += [f"{module}.{name}\n" for name in sorted(exported(tree) or [])]
    return "".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PINNED.write_text(public_names())
    else:
        sys.stdout.write(public_names())
