"""Writes the table of claims into docs/methods.md: `python -m benchmarks.claims.table --write`; a test compares them.

It stands between `<!-- claims -->` and `<!-- /claims -->`, and is made from what benchmarks/results/claims holds.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.claims.claim import Verdict
from benchmarks.claims.explained import EXPLAINED
from benchmarks.claims.methods import METHODS, TOGETHER
from benchmarks.claims.session import verdicts
from benchmarks.claims.store import Store

__all__ = ["DOCS", "filled", "main", "stored_table", "table"]

DOCS = Path(__file__).parent.parent.parent / "docs" / "methods.md"
_START, _END = "<!-- claims -->", "<!-- /claims -->"
_HEAD = "| claim | from | what | limit | measured | margin | verdict |\n|---|---|---|---|---|---|---|"


def table(found: Sequence[Verdict], explained: Mapping[str, str] = EXPLAINED) -> str:
    """Returns the verdicts as a table, with what was found out about those that fall short below it."""
    notes = [
        f"- `{each.claim.name}` falls short: {explained.get(each.claim.name, 'not looked into yet')}"
        for each in found
        if each.values and not each.holds
    ]
    lines = [_HEAD, *(_line(each) for each in found), "", _count(found)]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def stored_table() -> str:
    """Returns the table of all claims from the stored results."""
    store = Store()
    return table([found for part in (METHODS, TOGETHER) for found in verdicts(part.claims, store, part.trials)])


def filled(text: str, content: str) -> str:
    """Returns a text with the content between the two marks."""
    before, start, rest = text.partition(_START)
    _, end, after = rest.partition(_END)
    if not (start and end):
        raise ValueError(f"the text has no {_START} followed by {_END}")
    return f"{before}{_START}\n{content}\n{_END}{after}"


def main() -> int:
    """Writes the table into the docs, or says whether it is as the results are."""
    text = DOCS.read_text()
    renewed = filled(text, stored_table())
    if "--write" in sys.argv:
        DOCS.write_text(renewed)
        return 0
    return int(renewed != text)


def _line(each: Verdict) -> str:
    claim = each.claim
    source = f"{claim.source}{f'; row {claim.row}' if claim.row else ''}"
    text = claim.text.replace("|", "/")
    cells = (f"`{claim.name}`", source, text, f"{claim.limit}", each.measured, each.margin, each.state)
    return f"| {' | '.join(cells)} |"


def _count(found: Sequence[Verdict]) -> str:
    passed, short = sum(each.ok for each in found), sum(bool(each.values) and not each.holds for each in found)
    passing = f"{passed} pass on the seeds that they ask for"
    rest = ", the others need more seeds" if passed + short < len(found) else ""
    return f"{len(found)} claims: {passing}, {short} fall short{rest}."


if __name__ == "__main__":
    sys.exit(main())
