"""The recorded version names the code: what a benchmark itself writes does not count as a change."""

from __future__ import annotations

import subprocess

import pytest

from benchmarks import conditions


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Returns a checkout with one commit, whose benchmark has just stored a result."""
    monkeypatch.setattr(conditions, "ROOT", tmp_path)
    for name in ("models/nets.py", "benchmarks/results/wire.json", "docs/methods.md", "README.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("as committed")
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false")
    for words in (("init", "--quiet"), ("add", "."), (*who, "commit", "--quiet", "--message=first")):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    (tmp_path / "benchmarks/results/claims").mkdir()
    for name in (
        "benchmarks/results/wire.json",
        "benchmarks/results/claims/new.1.json",
        "docs/methods.md",
        "README.md",
    ):
        (tmp_path / name).write_text("written by the benchmark")
    return tmp_path


def test_results_and_documents_are_no_changes_of_the_code(checkout):
    words = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    head = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    assert conditions.conditions()["commit"] == head


@pytest.mark.parametrize("name", ["models/nets.py", "models/new.py", "benchmarks/wire.py"])
def test_changed_and_new_code_is_said(checkout, name):
    (checkout / name).write_text("another line")
    assert conditions.conditions()["commit"].endswith(" with changes")
