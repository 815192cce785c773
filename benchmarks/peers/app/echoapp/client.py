"""A client that sends the vector back with noise of its own."""

# mypy: ignore-errors
from __future__ import annotations

import numpy as np
from flwr.client import ClientApp, NumPyClient

__all__ = ["app"]


class _Echo(NumPyClient):
    def fit(self, parameters, config):
        noise = np.random.default_rng().random(parameters[0].shape, dtype=np.float32) - np.float32(0.5)
        return [parameters[0] + np.float32(0.01) * noise], 1, {}


app = ClientApp(client_fn=lambda context: _Echo().to_client())
