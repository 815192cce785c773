"""One run of the claims from the command line: which trials, what is missing, and the verdicts."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.claims.claim import Claim, Seed, Verdict, verdict
from benchmarks.claims.methods import Chapter
from benchmarks.claims.runner import pieces_of, run_pieces
from benchmarks.claims.store import Store
from benchmarks.claims.trial import Trial
from benchmarks.result import Requirement, Result

__all__ = ["chosen", "seeds_of", "session", "verdicts"]


def session(asked: argparse.Namespace, chapter: Chapter) -> Result:
    """Runs the trials that are missing and returns the verdicts on the chosen claims."""
    if asked.set and not asked.store:
        sys.exit("--set makes other trials than the claims want: give them another --store")
    store = Store(asked.store) if asked.store else Store()
    trials = {name: replace(trial, settings=(*trial.settings, *asked.set)) for name, trial in chapter.trials.items()}
    wanted, runs = chosen(asked.only, chapter.claims, trials)
    if asked.list:
        _list(wanted, runs, store)
        return Result({})
    runs = [trial for trial in runs if not trial.real and (asked.long or asked.only or not trial.long)]
    run_pieces(pieces_of(runs, asked.seeds), store, asked.work or _work(), asked.fresh)
    return _result(verdicts(wanted, store, trials))


def chosen(only: str | None, claims: Sequence[Claim], trials: dict[str, Trial]) -> tuple[list[Claim], list[Trial]]:
    """Returns the claims to judge and the trials to run; `only` is a claim, a trial or a pattern."""
    if not only:
        return list(claims), list(trials.values())
    wanted = [claim for claim in claims if fnmatchcase(claim.name, only)]
    names = {name for claim in wanted for name in claim.trials} | {name for name in trials if fnmatchcase(name, only)}
    if not names:
        sys.exit(f"there is no claim and no trial {only!r}; --list shows them")
    return wanted, [trial for name, trial in trials.items() if name in names]


def verdicts(claims: Iterable[Claim], store: Store, trials: dict[str, Trial]) -> list[Verdict]:
    """Returns the verdict on each claim from what is stored; records of other settings do not count."""
    listed = list(claims)
    needed = {name for claim in listed for name in claim.trials if name in trials}
    seeds = seeds_of(store, [trials[name] for name in sorted(needed)])
    return [verdict(claim, seeds) for claim in listed]


def seeds_of(store: Store, trials: Iterable[Trial]) -> list[Seed]:
    """Returns the figures of every stored seed, in order, by trial."""
    found: dict[int, dict[str, dict[str, object]]] = {}
    for trial in trials:
        for path in store.folder.glob(f"{trial.name}.*.json"):
            number = path.name.removeprefix(f"{trial.name}.").removesuffix(".json")
            record = store.read(trial, int(number)) if number.isdecimal() else None
            if record:
                found.setdefault(int(number), {})[trial.name] = record["figures"]
    return [found[number] for number in sorted(found)]


def _result(found: Sequence[Verdict]) -> Result:
    figures: dict[str, float | int | str | None] = {}
    for each in found:
        figures[each.claim.name] = f"{each.state}: {each.measured}, limit {each.claim.limit}, margin {each.margin}"
    return Result(figures, tuple(Requirement(v.claim.name, str(v.claim.limit), v.mean, v.ok) for v in found))


def _list(claims: Sequence[Claim], trials: Sequence[Trial], store: Store) -> None:
    for claim in claims:
        print(f"claim {claim.name:24} {claim.limit!s:8} {claim.text} [{', '.join(claim.trials)}]")
    for trial in trials:
        found = store.folder.glob(f"{trial.name}.*.json")
        numbers = sorted(path.name.split(".")[-2] for path in found)
        stored = ", ".join(n for n in numbers if n.isdecimal() and store.read(trial, int(n)))
        print(f"trial {trial.name:24} {'long ' if trial.long else ''}seeds stored: {stored or 'none'}")


def _work() -> Path:
    return Path(tempfile.gettempdir()) / f"bitfleet-claims-{os.getuid()}"
