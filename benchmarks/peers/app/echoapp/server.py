"""FedAvg that notes when each round was aggregated, in the file that the run's configuration names."""

# mypy: ignore-errors
from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from flwr.common import ndarrays_to_parameters
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg

__all__ = ["app"]


class _Timed(FedAvg):
    report: Path

    def aggregate_fit(self, server_round, results, failures):
        mean = super().aggregate_fit(server_round, results, failures)
        with self.report.open("a") as file:
            file.write(f"{time.time()} {len(results)} {len(failures)}\n")
        return mean


def _components(context) -> ServerAppComponents:
    settings = context.run_config
    nodes, start = int(settings["nodes"]), np.zeros(int(settings["elements"]), np.float32)
    strategy = _Timed(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=nodes,
        min_available_clients=nodes,
        initial_parameters=ndarrays_to_parameters([start]),
    )
    strategy.report = Path(settings["report"])
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=int(settings["rounds"])))


app = ServerApp(server_fn=_components)
