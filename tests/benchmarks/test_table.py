"""The table in the docs is what the stored results give."""

from __future__ import annotations

import pytest

from benchmarks.claims.claim import verdict
from benchmarks.claims.explained import EXPLAINED
from benchmarks.claims.methods import METHODS, TOGETHER
from benchmarks.claims.table import DOCS, filled, stored_table, table
from tests.benchmarks.made import CLAIM


def figures(gain):
    return {"made": {"accuracy": 50 + gain}, "other": {"accuracy": 50}}


def test_table_has_a_line_for_each_claim_and_says_what_falls_short():
    short = verdict(CLAIM, [figures(7)] * 5)
    text = table([short, verdict(CLAIM, [])], {"gain": "the net is too easy"})
    assert text.splitlines()[2] == (
        "| `gain` | note, claim 1; row 3 | made over other | >= 8 | 7.00 ± 0.00 points, 5 seeds | -1.00 | FALLS SHORT |"
    )
    assert "NOT MEASURED" in text.splitlines()[3]
    assert "2 claims: 0 pass on the seeds that they ask for, 1 fall short" in text
    assert text.splitlines()[-1] == "- `gain` falls short: the net is too easy"


def test_filled_renews_only_what_is_between_the_marks():
    text = "before\n<!-- claims -->\nold\n<!-- /claims -->\nafter"
    renewed = filled(text, "new")
    assert renewed == "before\n<!-- claims -->\nnew\n<!-- /claims -->\nafter"
    assert filled(renewed, "new") == renewed
    with pytest.raises(ValueError, match="claims"):
        filled("no marks", "new")


def test_explanations_are_of_claims_that_there_are():
    assert set(EXPLAINED) <= {claim.name for part in (METHODS, TOGETHER) for claim in part.claims}


def test_table_in_the_docs_is_that_of_the_stored_results():
    text = DOCS.read_text()
    assert filled(text, stored_table()) == text, "python -m benchmarks.claims.table --write"
