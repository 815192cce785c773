"""Memory that ran short while a file was tried: it says nothing of the file, so that it is tried again a few times."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace

from edge_agent.serving.policy import Finding
from wire.messages.rollout import ModelReport

__all__ = ["SHORT", "Shortage", "is_news", "named"]

SHORT = "E-MEMORY"
_MOST_TIMES = 3  # so often a file is tried again
_REST_S = 30.0
_FREE = re.compile(r"(?<= bytes of memory, at most )\d+")
_WORDS = ("bad_alloc", "Failed to allocate memory", "more memory than is free")


def named(found: Finding) -> Finding:
    """Returns a finding, under the code of a shortage where the runtime's own words say that it was one."""
    short = found.code == "E-MODEL-LOAD" and any(words in found.reason for words in _WORDS)
    return replace(found, code=SHORT) if short else found


def is_news(report: ModelReport, said: ModelReport | None) -> bool:
    """Tells whether a report says more than the one before: how many bytes are free this time is not worth another."""
    return said is None or _lasting(report) != _lasting(said)


def _lasting(report: ModelReport) -> ModelReport:
    if report.code != SHORT or not report.found:
        return report
    found = tuple(replace(one, why=_FREE.sub("", one.why)) for one in report.found)
    return replace(report, reason="", found=found)  # its reason is all of theirs in a row, cut where it gets long


@dataclass(slots=True)
class Shortage:
    """How often memory was short for each file. Until `rest_s` nothing is tried."""

    times: Counter[str] = field(default_factory=Counter)
    rest_s: float = float("-inf")

    def again(self, name: str, now_s: float) -> bool:
        """Counts one time more; tells whether to try that file again after a rest."""
        self.times[name] += 1
        if self.times[name] > _MOST_TIMES:
            return False
        self.rest_s = now_s + _REST_S
        return True
