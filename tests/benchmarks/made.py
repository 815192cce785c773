"""Made-up trials, records and claims."""

from __future__ import annotations

from benchmarks.claims.claim import Claim, at_least
from benchmarks.claims.trial import Trial, listed, recipe_of

TRIAL = Trial("made", "fedavg", ("rounds=3",), devices=6)
OTHER = Trial("other", "fedavg", ("rounds=3", "train.rate=0.2"))
CLAIM = Claim("gain", "note, claim 1", 3, "made over other", ("made", "other"),
              lambda seed: seed["made"]["accuracy"] - seed["other"]["accuracy"], at_least(8))  # fmt: skip


def record(trial: Trial, seed: int, **figures: object) -> dict[str, object]:
    """Returns a record as the runner writes it."""
    settings = listed(recipe_of(trial, seed).to_json())
    return {"trial": trial.name, "seed": seed, "devices": trial.devices, "settings": settings, "figures": figures}
