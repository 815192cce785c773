"""The task "echo": no data and no training. It sends the model back, moved by seeded noise, to measure the rest."""

from __future__ import annotations

import numpy as np

from wire.bits import Bits
from wire.params import Params

__all__ = ["echo"]


def echo(base: Params, key: tuple[object, ...]) -> Params:
    """Returns `base` plus uniform noise of up to 0.005 a value; `key` names the noise."""
    moved = {}
    for name, values in base.items():
        noise = Bits.of(*key, "echo", name).uniform(values.size) - np.float32(0.5)
        moved[name] = values + np.float32(0.01) * noise.reshape(values.shape)
    return moved
