"""Keeps the house rules of CONTRIBUTING.md true, by reading the code and by importing it in fresh interpreters."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.public_names import PACKAGES, PINNED, ROOT, exported, modules, public_names

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MAY_IMPORT = {
    "wire": set(),
    "models": {"wire"},
    "edge_agent": {"wire", "models"},
    "coordinator": {"wire", "models"},
    "export": {"wire", "models"},
    "simulation": {"wire", "models", "edge_agent", "coordinator"},
}
LATER = {"coordinator/__main__.py": {"export", "simulation"}}
"""What a module may import inside a function although its package may not: see CONTRIBUTING.md, rule 3."""
MODULES = dict(modules())
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {"torch.load", "os.system", "os.popen", "eval", "exec", "np.random.seed", "numpy.random.seed"}
FORBIDDEN_CALLS |= {"random.seed", "torch.manual_seed", "torch.random.manual_seed"}
FORBIDDEN_FLAGS = {"shell", "allow_pickle"}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yields the top-level names that a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").split(".")[0] if node.level == 0 else "."


def listed(heading: str) -> dict[str, str]:
    """Returns the entries "- `what`: why" below a heading of CONTRIBUTING.md."""
    after = CONTRIBUTING.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return dict(re.findall(r"^- `([^`]+)`: (.+)$", after, re.MULTILINE))


def python_files() -> list[Path]:
    """Returns all our Python files, tests and benchmarks included."""
    return [path for folder in (*PACKAGES, "benchmarks", "tests") for path in sorted((ROOT / folder).rglob("*.py"))]


def measured() -> dict[str, str]:
    """Returns what is over a house limit: a file by path, a function as path::name, a folder as path/."""
    over, folders = {}, {}
    for path in python_files():
        name, text = path.relative_to(ROOT).as_posix(), path.read_text()
        if path.name != "__init__.py":
            folder = path.parent.relative_to(ROOT).as_posix() + "/"
            folders[folder] = folders.get(folder, 0) + 1
        if (lines := text.count("\n")) > 300:
            over[name] = f"{lines} lines, the limit is 300"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > 60:
                    over[f"{name}::{node.name}"] = f"{lines} lines, the limit is 60"
    return over | {folder: f"{n} files, the limit is 12" for folder, n in folders.items() if n > 12}


def loaded_by(code: str) -> set[str]:
    """Returns the top-level modules that a fresh interpreter holds after running `code`."""
    script = f"{code}\nimport sys\nprint(' '.join({{name.split('.')[0] for name in sys.modules}}))"
    command = [sys.executable, "-W", "error", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_every_package_is_there():
    assert {path.split("/")[0] for path in MODULES} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_import_table(package):
    ours = {path: set(imports(tree)) & {*PACKAGES, "."} for path, tree in MODULES.items()}
    may = MAY_IMPORT[package] | {package}
    wrong = {path: names - may - LATER.get(path, set()) for path, names in ours.items()}
    assert not {path: names for path, names in wrong.items() if names and path.startswith(f"{package}/")}


@pytest.mark.parametrize("path", LATER)
def test_what_is_imported_later_is_imported_in_functions_only(path):
    at_once = {name for node in MODULES[path].body if not isinstance(node, ast.FunctionDef) for name in imports(node)}
    assert not at_once & LATER[path]
    assert LATER[path] <= set(imports(MODULES[path])), "this exception is no longer needed"


def test_packages_import_neither_tests_nor_benchmarks():
    assert not [path for path, tree in MODULES.items() if {"tests", "benchmarks"} & set(imports(tree))]


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_is_light(package):
    others = set(PACKAGES) - MAY_IMPORT[package] - {package}
    assert not loaded_by(f"import {package}") & ({"torch", "onnx", "onnxruntime"} | others)


@pytest.mark.parametrize("module", ["edge_agent.agent", "edge_agent.__main__", "wire.links.mqtt"])
def test_what_the_resident_loads(module):
    assert not loaded_by(f"import {module}") & {"torch", "numpy", "onnx", "onnxruntime", "coordinator", "export"}


def test_what_a_board_that_only_infers_loads():
    commands = "import edge_agent.serving.commands, edge_agent.serving.model, models.sources.table"
    assert not loaded_by(commands) & {"torch", "onnx", "coordinator", "export"}


def test_torch_only_in_the_named_files():
    using = {path for path, tree in MODULES.items() if "torch" in set(imports(tree))}
    named = listed("Files that import torch")
    assert {path if path in named else f"{path.rpartition('/')[0]}/" for path in using} == set(named)
    assert not [path for path in using if path.endswith("/settings.py")]
    assert not [path for path in using if path.endswith("__init__.py")]


def test_every_module_says_what_is_public():
    silent = [path for path, tree in MODULES.items() if exported(tree) is None and len(tree.body) > 1]
    assert not silent


def test_public_names_are_pinned():
    renew = "python -m tests.public_names --write, and a line in CHANGELOG.md"
    assert public_names().splitlines() == PINNED.read_text().splitlines(), renew


def test_sizes_within_the_house_rules_or_argued():
    over, excused = measured(), listed("Exceptions")
    assert not {what: size for what, size in over.items() if what not in excused}
    assert not set(excused) - set(over), "these exceptions are no longer needed"
    assert not [what for what, why in excused.items() if len(why.split()) < 8], "an exception is argued, not named"


def test_every_file_is_named_after_an_idea():
    assert not [str(path) for path in python_files() if {path.stem, path.parent.name} & FORBIDDEN_NAMES]


def test_every_module_has_a_docstring():
    assert not [path for path, tree in MODULES.items() if not ast.get_docstring(tree)]


def faults(tree: ast.AST) -> Iterator[str]:
    """Yields what the house forbids in packages."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield f"line {node.lineno}: assert"
        if isinstance(node, ast.Call):
            if ast.unparse(node.func) in FORBIDDEN_CALLS:
                yield f"line {node.lineno}: {ast.unparse(node.func)}"
            off = {"False", "0", "None"}
            flags = [word.arg for word in node.keywords if word.arg in FORBIDDEN_FLAGS]
            yield from (f"line {node.lineno}: {w}" for w in flags if w and _given(node, w) not in off)
    yield from (f"import {name}" for name in imports(tree) if name in FORBIDDEN_IMPORTS)


def _given(call: ast.Call, name: str) -> str:
    return next(ast.unparse(word.value) for word in call.keywords if word.arg == name)


@pytest.mark.parametrize(
    "code",
    [
        "assert x",
        "import pickle",
        "from pickle import loads",
        "def f():\n    import shelve",
        "torch.load(path)",
        "eval(text)",
        "run(command, shell=True)",
        "np.load(path, allow_pickle=True)",
        "random.seed(1)",
    ],
)
def test_faults_are_seen(code):
    assert list(faults(ast.parse(code)))
    assert not list(faults(ast.parse("np.load(p, allow_pickle=False); model.eval(); generator.manual_seed(1)")))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_faults_in_packages(package):
    found = {path: list(faults(tree)) for path, tree in MODULES.items() if path.startswith(f"{package}/")}
    assert not {path: lines for path, lines in found.items() if lines}


LAPTOP = tomllib.loads((ROOT / "pyproject.toml").read_text())
BOARD = tomllib.loads((ROOT / "deploy/agent/pyproject.toml").read_text())


def test_both_distributions_have_one_version():
    assert LAPTOP["project"]["version"] == BOARD["project"]["version"]


def test_the_wheels_hold_every_folder_and_every_data_file():
    assert not [path for path in MODULES if not (ROOT / path).with_name("__init__.py").exists()]
    rules = LAPTOP["tool"]["setuptools"]["package-data"]
    data = {p for top in PACKAGES for p in (ROOT / top).rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    packed = {path for top, globs in rules.items() for glob in globs for path in (ROOT / top).glob(glob)}
    assert data <= packed
    assert all(rules[top] == globs for top, globs in BOARD["tool"]["setuptools"]["package-data"].items())


def test_the_board_gets_no_coordinator():
    laptop = set(LAPTOP["tool"]["setuptools"]["packages"]["find"]["include"])
    assert laptop == {f"{package}*" for package in PACKAGES}
    board = set(BOARD["tool"]["setuptools"]["packages"]["find"]["include"])
    assert board == laptop - {"coordinator*", "export*", "simulation*"}


def test_requirements_agree():
    laptop, board = LAPTOP["project"]["dependencies"], BOARD["project"]["dependencies"]
    assert set(board) <= set(laptop)
    names = [re.match(r"[\w-]+", line) for line in (ROOT / "requirements.txt").read_text().splitlines()]
    assert {m[0] for m in names if m} == {m[0] for line in laptop if (m := re.match(r"[\w-]+", line))}
