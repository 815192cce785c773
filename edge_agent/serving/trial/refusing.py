"""Why an offer is refused of which no variant is taken."""

from __future__ import annotations

from collections.abc import Mapping

from edge_agent.serving.policy import Choice, Finding
from edge_agent.serving.trial.shortage import SHORT
from wire.errors import Declined

__all__ = ["refused"]


def refused(choice: Choice, findings: Mapping[str, Finding]) -> Declined:
    """Returns the refusal: first what goes by, then what is broken, what does badly here, what only does not fit."""
    codes = [found.code for found in findings.values() if found.code]
    if SHORT in codes or choice.short:
        return Declined(choice.why, code=SHORT, remedy="free some memory, or publish a smaller variant")
    if codes:
        return Declined(choice.why, code=codes[0])
    if choice.poor:
        remedy = "train further, or look at this device's examples and at min_accuracy"
        return Declined(choice.why, code="E-MODEL-ACCURACY", remedy=remedy)
    return Declined(choice.why, code="E-MODEL-POLICY", remedy="look at [model] in the agent's configuration")
