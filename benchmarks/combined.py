"""The recipe `combined` against float FedAvg on Fashion-MNIST: bytes to the same accuracy, and accuracy at 4 bits."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.claims import add_options
from benchmarks.result import Result

__all__ = ["run"]


def run(options: Sequence[str]) -> Result:
    """Runs what is missing of its long trials, which are stored with those of the claims, and returns the verdicts."""
    from benchmarks.claims.methods import TOGETHER
    from benchmarks.claims.session import session

    parser = argparse.ArgumentParser(prog="scripts/bench combined", description=__doc__)
    add_options(parser)
    parser.set_defaults(long=True)
    return session(parser.parse_args(options), TOGETHER)
