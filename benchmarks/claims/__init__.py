"""Every statistical claim of the methods' notes, by simulated runs that are stored and never repeated."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.result import Result

__all__ = ["add_options", "run"]


def run(options: Sequence[str]) -> Result:
    """Runs what is missing of the chosen claims' trials and returns the verdicts from all that is stored."""
    from benchmarks.claims.methods import METHODS
    from benchmarks.claims.session import session

    parser = argparse.ArgumentParser(prog="scripts/bench claims", description=__doc__)
    add_options(parser)
    return session(parser.parse_args(options), METHODS)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that all benchmarks over the store of trials have."""
    parser.add_argument("--only", metavar="NAME", help="a claim or a trial, or a pattern such as 'qr-*'")
    parser.add_argument("--seeds", type=int, default=5, help="use the seeds 1 to this")
    parser.add_argument("--resume", action="store_true", help="goes on where it stopped; it always does")
    parser.add_argument("--fresh", action="store_true", help="runs the trials anew, stored or not")
    parser.add_argument("--long", action="store_true", help="also the trials of ten minutes and more")
    parser.add_argument("--list", action="store_true", help="only lists claims, trials and what is stored")
    parser.add_argument("--store", type=Path, metavar="DIR", help="instead of benchmarks/results/claims")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where unfinished runs lie")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="for a try; needs --store")
