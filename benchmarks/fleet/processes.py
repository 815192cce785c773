"""Starts a broker, agents and a coordinator as the processes that a user would start, in one folder."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from coordinator.broker import Broker, start_broker
from coordinator.front.demo import FLEET, agent_config, start_python
from wire.sign import make_key, public_key

__all__ = ["Fleet", "fleet"]


@dataclass
class Fleet:
    """What was started so far; it ends with the block that `fleet` opened."""

    folder: Path
    broker: Broker
    stack: ExitStack
    agents: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    devices: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """Returns the coordinator's folder."""
        return self.folder / "home"

    @property
    def key(self) -> str:
        """Returns the coordinator's public key, which every agent checks signatures against."""
        return public_key(self.home / "round.key")

    def join(self, count: int, port: int | None = None, train: str = "") -> None:
        """Starts agents on the task "echo", at the broker or through `port`; `train` is added to [train]."""
        url = f"mqtt://127.0.0.1:{port or self.broker.port}"
        for device in (f"device-{at:02d}" for at in range(count)):
            config = self.folder / f"{device}.toml"
            config.write_text(agent_config(device, url, self.folder / device, {"task": "echo"}, self.key) + train)
            self.agents[device] = self.start("edge_agent", "run", "--config", str(config), log=device)
            self.devices.append(self.agents[device])

    def swarm(self, count: int, processes: int) -> None:
        """Starts so many agents without children, in so few processes."""
        edges = [count * at // processes for at in range(processes + 1)]
        words = ["--broker", self.broker.url, "--fleet", FLEET, "--key", self.key, "--folder", str(self.folder)]
        for first, past in pairwise(edges):
            part = ["--first", str(first), "--count", str(past - first)]
            self.devices.append(self.start("benchmarks.fleet.swarm", *words, *part, log=f"swarm-{first}"))

    def serve(self, *words: str) -> subprocess.Popen[bytes]:
        """Starts `bitfleet serve` of the recipe "echo"; `words` are added."""
        place = ("--home", str(self.home), "--fleet", FLEET, "--broker", self.broker.url)
        return self.start("coordinator", "serve", *place, "--recipe", "echo", *words, log="coordinator")

    def check(self) -> None:
        """Raises if a device's process has ended: the coordinator would wait for it."""
        ended = [process.args for process in self.devices if process.poll() is not None]
        if ended:
            tails = [log.read_text()[-500:] for log in sorted(self.folder.glob("*.log"))]
            raise RuntimeError("\n".join([f"ended early: {ended}", *tails]))

    def start(self, module: str, *words: str, log: str) -> subprocess.Popen[bytes]:
        """Starts `python -m MODULE WORDS`, with its output in the log of that name."""
        return self.stack.enter_context(start_python(self.folder / f"{log}.log", module, *words))


@contextmanager
def fleet(broker: str) -> Iterator[Fleet]:
    """Starts a broker of this kind and opens a folder for the rest; both go with the block."""
    with tempfile.TemporaryDirectory(prefix="bitfleet-bench-") as place, ExitStack() as stack:
        folder = Path(place)
        (folder / "home").mkdir()
        make_key(folder / "home" / "round.key")
        yield Fleet(folder, stack.enter_context(start_broker(broker, folder / "broker")), stack)
