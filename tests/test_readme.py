"""What the README tells a reader to type or to open is there, and so is what the documents link to."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from benchmarks.__main__ import available
from benchmarks.readme import DOCUMENTS, filled

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)")
PROGRAMS = {
    ".venv/bin/bitfleet": "coordinator",
    ".venv/bin/bitfleet-agent": "edge_agent",
    "scripts/demo": "coordinator",
}


def commands() -> list[list[str]]:
    """Returns the README's command lines, split: those in blocks and those in running text."""
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)).splitlines()
    inline = [line for line in re.findall(r"`([^`\n]+)`", TEXT) if line.startswith(("scripts/", ".venv/", ".ci/"))]
    return [words for line in (*blocks, *inline) if (words := shlex.split(line, comments=True))]


@cache
def help_of(*words: str) -> str:
    """Returns what `python -m ... --help` prints."""
    command = [sys.executable, "-m", *words, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_commands():
    assert ["scripts/demo"] in commands()


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_command(words):
    program = words[0]
    if program in PROGRAMS:
        subcommand = ["demo"] if program == "scripts/demo" else [word for word in words[1:] if word[0] != "-"][:1]
        shown = help_of(PROGRAMS[program], *subcommand)
        assert all(word in shown for word in words[1:] if word.startswith("--"))
    else:
        assert os.access(ROOT / program, os.X_OK), f"{program} cannot be run"
    if program == "scripts/bench" and len(words) > 1:
        assert words[1] in available()


@pytest.mark.parametrize(("program", "named"), re.findall(r"(\S+) --help +# on the \w+: (.+)", TEXT))
def test_subcommands_named_in_comments(program, named):
    assert set(named.split(", ")) <= set(re.findall(r"[\w-]+", help_of(PROGRAMS[program])))


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#:]+)\)", TEXT))))
def test_link(target):
    assert (ROOT / target).exists()


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").iterdir()), ids=lambda path: path.name)
def test_script_is_bash_that_parses_and_says_what_it_does(script):
    assert script.read_text().startswith("#!/usr/bin/env bash\n# ")
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def test_a_32_bit_python_is_refused_before_anything_is_made(tmp_path):
    """Raspberry Pi OS comes as a 32-bit system too, for which torch has no build; pip does not say so."""
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\ncase $2 in *maxsize*) exit 1;; esac\n")
    python.chmod(0o755)
    places = {"PATH": f"{tmp_path}:/usr/bin:/bin", "BITFLEET_VENV": str(tmp_path / "venv")}
    done = subprocess.run(
        [ROOT / "scripts/install"], env=places, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, "python3 is a 32-bit one" in done.stderr) == (1, True), done.stderr
    assert "install a 64-bit system" in done.stderr and not (tmp_path / "venv").exists()


def test_figures_are_those_of_the_stored_results():
    for path in DOCUMENTS:
        text = path.read_text()
        assert filled(text) == text, "python -m benchmarks.readme --write"


def anchors(path: Path) -> set[str]:
    """Returns the names of headings as they stand in links: small letters, hyphens for spaces, nothing else."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.strip().lower()).replace(" ", "-") for head in heads}


def broken(path: Path) -> list[str]:
    found = []
    for target, anchor in LINK.findall(path.read_text(encoding="utf-8")):
        there = path.parent / target if target else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            found.append(f"{target}#{anchor}")
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    assert broken(path) == []


def test_a_link_that_leads_nowhere_is_seen(tmp_path):
    (tmp_path / "there.md").write_text("# One & two\n")
    page = tmp_path / "page.md"
    page.write_text("[a](there.md#one--two) [b](there.md) [c](#here)\n\n## Here\n[d](gone.md) [e](there.md#three)\n")
    assert broken(page) == ["gone.md#", "there.md#three"]
