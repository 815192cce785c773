"""Short rounds of a device with a model of its own."""

from __future__ import annotations

import numpy as np

from edge_agent.training.fit import Fit
from edge_agent.training.personal import fit_personal
from models.archs import spec_of
from models.data import Dataset, load
from models.init import initial
from wire.messages.train import TrainSettings
from wire.params import params_digest

__all__ = ["KEY", "NOW", "SPEC", "below", "digits", "run", "same", "settings"]

KEY = (3, 0, "dev-1")
SPEC = spec_of("mlp-16-16", (1, 8, 8), 10, 7)
NOW = {"warm_rounds": 0, "skip": []}


def digits(start=0, count=60) -> Dataset:
    return load("digits").take(np.arange(start, start + count))


def settings(**personal):
    return TrainSettings("digits", epochs=2, batch=12, rate=0.1, momentum=0.5, decay=0.01, personal=personal)


def run(base=None, memory=None, key=KEY, spec=SPEC, data=None, **personal) -> Fit:
    return fit_personal(base or initial(spec), spec, data or digits(), settings(**personal), key, memory=memory or {})


def below(memory, prefix):
    return {name.removeprefix(prefix): values for name, values in memory.items() if name.startswith(prefix)}


def same(one, two):
    return params_digest(one) == params_digest(two)
