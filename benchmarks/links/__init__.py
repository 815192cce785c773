"""Wall time of float FedAvg and of the recipe `combined` with ten devices behind 1 Mbit/s up and 4 Mbit/s down.

Ten real agents, a real coordinator and a real broker; the links are network namespaces with a token bucket filter each
way, or a relay for each device. The time of a round is measured; the time to an accuracy is computed: it is that time
by the rounds that the simulated trials tg-leaf-fedavg and tg-leaf-combined needed. What is measured is stored with the
trials of the claims, so that a run goes on where it stopped; with the trials stored later, only the sums are made anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.result import Result

__all__ = ["run"]


def run(options: Sequence[str]) -> Result:
    """Measures what is not stored yet, both recipes of a seed one after the other, and returns the figures."""
    from benchmarks.links.session import add_options, session

    parser = argparse.ArgumentParser(prog="scripts/bench links", description=__doc__)
    add_options(parser)
    return session(parser.parse_args(options))
