"""docs/wire.md says what the code does: kinds, fields, topics, codes, limits and every byte of the examples."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from tests.wire.messages.golden import GOLDEN
from wire.bits import Bits
from wire.frame import MAX_DEPTH, MAX_HEADER_BYTES, Kind
from wire.messages import reports
from wire.messages.manifest import MANIFEST_BYTES, MOST_VARIANTS, PROFILES, Manifest, Measured, Variant
from wire.messages.plan import MAX_BLOBS, MAX_ROUND, MAX_STAGES, RoundPlan
from wire.messages.reports import STATES, VERDICTS, Ask, DeviceState, Receipt
from wire.messages.rollout import MODEL_PHASES, Found, ModelReport, Offer
from wire.messages.update import MAX_HEADER_BYTES as MAX_UPDATE_HEADER_BYTES
from wire.messages.update import UpdateHeader
from wire.stages.chain import STAGES
from wire.stages.positions import encode_positions
from wire.topics import TABLE

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/wire.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## \d+\. (.+?)\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL))
MODELS = SECTIONS["Models: manifest, golden blob, offer, report"]
BLOCKS = dict(re.findall(r"^```hex (\w+)\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL))


def rows(text: str) -> list[list[str]]:
    """Returns the cells of all tables, without their heads."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = [[cell.strip() for cell in line.strip("| \n").split("|")] for line in table.splitlines()]
        found += lines[2:]
    return found


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def written(block: str) -> str:
    """Returns an example's bytes in hex."""
    parts = [
        line.encode().hex() if line.startswith("{") else line.split("  ")[0].replace(" ", "")
        for line in block.splitlines()
    ]
    return "".join(parts)


@pytest.mark.parametrize("name", GOLDEN)
def test_examples(name):
    assert written(BLOCKS[name]) == GOLDEN[name]


def test_no_example_is_made_up():
    assert set(BLOCKS) == set(GOLDEN)


def test_golden_words():
    words = re.search(r"^```words\n(.*?)```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert words and words[1].split() == [f"{word:016x}" for word in Bits(123).words(4).tolist()]


def test_kinds():
    kinds = [(row[0], int(row[1])) for row in rows(SECTIONS["The frame"]) if len(row) == 4]
    assert kinds == [(kind.name, kind.value) for kind in Kind]


def test_topics():
    told = rows(SECTIONS["Topics and the flow"])
    known = [
        [f"`{row.path}`", row.meaning, "yes" if row.retained else "no", row.writer, ", ".join(row.readers)]
        for row in TABLE
    ]
    assert told == known


def codes_in(folder: str) -> set[str]:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / folder).rglob("*.py")]
    return {code for text in texts for code in re.findall(r'"(E-[A-Z-]+)"', text)}


def test_codes():
    decoders, coordinators = SECTIONS["Codes of refusals"].split("What only a coordinator finds")
    told = [code for row in rows(decoders) for code in names(row[0])]
    assert sorted(told) == sorted(codes_in("wire"))
    only = [code for row in rows(coordinators) for code in names(row[0])]
    refusing = ROOT / "coordinator/rounds/accept.py"
    raised = set(re.findall(r'Refused\(.*code="(E-[A-Z-]+)"', refusing.read_text(encoding="utf-8")))
    assert raised - set(told) <= set(only) <= codes_in("coordinator")
    assert all(len(row) == 3 and all(row) for row in rows(SECTIONS["Codes of refusals"]))


def fields_told(text: str) -> list[str]:
    return [name for row in rows(text) for name in names(row[0])]


@pytest.mark.parametrize(
    ("section", "message"), [("The plan", RoundPlan), ("The update", UpdateHeader)], ids=["plan", "update"]
)
def test_fields(section, message):
    assert fields_told(SECTIONS[section]) == [field.name for field in fields(message)]


@pytest.mark.parametrize(("head", "message"), [("State", DeviceState), ("Ask", Ask), ("Receipt", Receipt)])
def test_report_fields(head, message):
    text = SECTIONS["Reports: state, ask, receipt"].split(f"\n**{head}**", 1)[1].split("\n**", 1)[0]
    assert fields_told(text) == [field.name for field in fields(message)]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("field of the manifest", Manifest),
        ("field of a variant", Variant),
        ("field of what was measured", Measured),
        ("field of the offer", Offer),
        ("field of the report", ModelReport),
        ("field of what a device found", Found),
    ],
)
def test_fields_of_models(head, message):
    table = MODELS.split(f"\n| {head} |", 1)[1].split("\n\n", 1)[0]
    assert sorted(fields_told(f"| {head} |{table}\n")) == sorted(field.name for field in fields(message))


def test_choices_and_limits_of_models():
    (phases,) = [names(row[1]) for row in rows(MODELS) if row[0] == "`phase`"]
    assert tuple(phases) == MODEL_PHASES
    (profiles,) = [names(row[1]) for row in rows(MODELS) if row[0] == "`profile`"]
    assert tuple(profiles) == PROFILES
    assert f"at most {MANIFEST_BYTES} bytes, always signed" in MODELS
    assert f"list of 1 to {MOST_VARIANTS} objects" in MODELS


def test_choices():
    reported = SECTIONS["Reports: state, ask, receipt"]
    (states,) = [names(row[2]) for row in rows(reported) if row[0] == "`state`"]
    assert tuple(states) == STATES
    (verdicts,) = [row[2] for row in rows(reported) if row[0] == "`verdict`"]
    assert tuple(name for name in names(verdicts) if name not in ("code", "spans")) == VERDICTS
    named = re.findall(r"^\*\*(\w+)\*\* `\{\"stage\"", SECTIONS["Records, stages, codings"], re.MULTILINE)
    assert set(named) == set(STAGES)


def test_limits():
    assert f"at most {MAX_HEADER_BYTES} |" in SECTIONS["The frame"]
    assert f"nested at most {MAX_DEPTH} deep" in SECTIONS["The frame"]
    assert f"at most {MAX_BLOBS} objects" in SECTIONS["The plan"]
    assert f"at most {MAX_STAGES} objects" in SECTIONS["The plan"]
    assert f"0 to {MAX_ROUND} |" in SECTIONS["The plan"]
    assert f"header at most {MAX_UPDATE_HEADER_BYTES} bytes" in SECTIONS["The update"]
    assert f"at most {reports._MOST_SPANS} `[start, end)`" in SECTIONS["Reports: state, ask, receipt"]
    assert f"longer than {reports._MOST_REASON} characters" in SECTIONS["Reports: state, ask, receipt"]


def test_position_examples():
    told = [
        row for row in rows(SECTIONS["Records, stages, codings"]) if re.fullmatch(r"[\d, ]+", row[0]) and len(row) == 3
    ]
    assert len(told) == 3
    for positions, n, data in told:
        numbers = np.array([int(number) for number in positions.split(",")], np.int64)
        assert encode_positions(numbers, int(n)).hex() == names(data)[0]
