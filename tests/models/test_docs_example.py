"""docs/own-model-and-data.md, taken at its word: its files are written, its package is found, its scripts are run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "own-model-and-data.md").read_text()
FILES = dict(re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


@pytest.fixture
def place(tmp_path):
    """Returns a folder with the page's files, and beside them what `pip install` leaves: a dist-info."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "greenhouse" / "__init__.py").touch()
    project = tomllib.loads(FILES["greenhouse/pyproject.toml"])["project"]
    dist = tmp_path / "greenhouse-1.0.dist-info"
    dist.mkdir()
    (dist / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (dist / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def said(place, *args):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(place), str(ROOT)])}
    command = [sys.executable, "-W", "error", *args]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_has_the_files_that_it_speaks_of():
    assert set(FILES) == {
        "greenhouse/pyproject.toml",
        "greenhouse/net.py",
        "greenhouse/data.py",
        "record.py",
        "try_it.py",
    }


def test_the_example_trains(place):
    said(place, "record.py")
    counts, result = said(place, "try_it.py").splitlines()
    assert counts == "180 examples, 123 parameters, 6 tensors"
    before, after, accuracy = map(float, re.findall(r"\d+\.\d+", result))
    assert after < before
    assert accuracy > 0.8


def test_the_example_is_a_task(place):
    code = "from models.tasks import task; t = task('greenhouse'); print(t.data, t.arch, t.input, t.outputs)"
    assert said(place, "-c", code) == "greenhouse mlp (3, 24) 3\n"


def test_a_machine_without_the_package_declines_by_name():
    code = (
        "from models.archs import spec_of\n"
        "from wire.errors import ConfigError\n"
        "try:\n    spec_of('greenhouse-net-8', (3, 24), 3, 7)\n"
        "except ConfigError as exc:\n    print(exc.message)"
    )
    assert said(ROOT, "-c", code) == "unknown architecture 'greenhouse-net'\n"
