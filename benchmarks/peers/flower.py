"""Flower 1.41 on the same work beside ours: seconds a round, and bytes up a client-round at the socket."""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from random import SystemRandom
from statistics import median

from benchmarks import round as our_round
from benchmarks import wire as our_wire
from benchmarks.result import Figure, Result
from tests.relay import Relay
from wire.pipe import die_with_parent

__all__ = ["run"]

_ROOT = Path(__file__).parent.parent.parent
_BIN = _ROOT / ".venv-flower" / "bin"
_APP = Path(__file__).parent / "app"
_PORTS = range(20000, 32000)
_CONFIG = '[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
_START_S, _LONGEST_ROUND_S = 60.0, 120.0


@dataclass(frozen=True, slots=True)
class _Mark:
    """A round was aggregated; `up_bytes` had passed the relay soon after."""

    at_s: float
    up_bytes: int


def run(options: Sequence[str]) -> Result:
    """Runs Flower, then our round and wire measurements at the same size."""
    parser = argparse.ArgumentParser(prog="scripts/bench peers.flower")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--elements", type=int, default=100_000)
    asked = parser.parse_args(options)
    if not (_BIN / "flwr").exists():
        raise SystemExit("Flower is not installed: run benchmarks/peers/setup")
    marks = _flower(asked.rounds, asked.nodes, asked.elements)
    return Result(_figures(asked, marks), conditions={"flwr": _version()})


def _figures(asked: argparse.Namespace, marks: list[_Mark]) -> dict[str, Figure]:
    pairs = list(pairwise(marks))
    round_s = median(after.at_s - before.at_s for before, after in pairs)
    up_bytes = (marks[-1].up_bytes - marks[0].up_bytes) / (len(pairs) * asked.nodes)
    ours_s = our_round.measure("mosquitto", asked.nodes, 20, asked.elements)["round_s"]
    ours_up = our_wire.measure("mosquitto", asked.nodes, 10, asked.elements, None)["socket_up_bytes"]
    return {
        **vars(asked),
        "flower_round_s": round_s,
        "bitfleet_round_s": ours_s,
        "round_ratio": round_s / ours_s,
        "flower_up_bytes": up_bytes,
        "bitfleet_up_bytes": ours_up,
        "flower_up_over_4p": up_bytes / (4 * asked.elements),
        "bitfleet_up_over_4p": ours_up / (4 * asked.elements),
        "flower_fixed_bytes": up_bytes - 4 * asked.elements,
        "bitfleet_fixed_bytes": ours_up - 4 * asked.elements,
    }


def _flower(rounds: int, nodes: int, elements: int) -> list[_Mark]:
    port, *node_ports = SystemRandom().sample(_PORTS, nodes + 1)
    with tempfile.TemporaryDirectory(prefix="bitfleet-flower-") as place, ExitStack() as stack:
        folder = Path(place)
        (folder / "config.toml").write_text(_CONFIG.format(port=port))
        link = stack.enter_context(Relay(port))
        words = ("--insecure", "--port", str(port), "--disable-runtime-dependency-installation")
        stack.enter_context(_started(folder, "flower-superlink", *words))
        _await_text(folder / "flower-superlink.log", "Fleet HTTP API")
        time.sleep(3)  # it logs that line before it listens
        for each in node_ports:
            node = ("--insecure", "--superlink", f"127.0.0.1:{link.port}", "--port", str(each))
            stack.enter_context(_started(folder, "flower-supernode", *node))
        settings = f'rounds={rounds} nodes={nodes} elements={elements} report="{folder / "report"}"'
        submit = [str(_BIN / "flwr"), "run", str(_APP), "bench", "--run-config", settings]
        subprocess.run(submit, env=_environment(folder), check=True, stdout=subprocess.DEVNULL)
        return _marks(folder / "report", rounds, nodes, link)


def _marks(report: Path, rounds: int, nodes: int, link: Relay) -> list[_Mark]:
    marks: list[_Mark] = []
    last_s = time.monotonic()
    while len(marks) < rounds:
        lines = report.read_text().splitlines() if report.exists() else []
        for line in lines[len(marks) :]:
            at_s, results, failures = line.split()
            if (int(results), int(failures)) != (nodes, 0):
                raise RuntimeError(f"round {len(marks) + 1}: {results} results, {failures} failures")
            marks.append(_Mark(float(at_s), link.up_bytes))
            last_s = time.monotonic()
        if time.monotonic() - last_s > _LONGEST_ROUND_S:
            raise RuntimeError(f"Flower did {len(marks)} of {rounds} rounds, then nothing for {_LONGEST_ROUND_S:.0f} s")
        time.sleep(0.05)
    return marks


@contextmanager
def _started(folder: Path, name: str, *words: str) -> Iterator[None]:
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [_BIN / name, *words], stdout=log, stderr=log, env=_environment(folder), preexec_fn=die_with_parent
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(folder: Path) -> dict[str, str]:
    path = os.pathsep.join([str(_BIN), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "FLWR_HOME": str(folder), "FLWR_TELEMETRY_ENABLED": "0"}


def _await_text(log: Path, text: str) -> None:
    ends_s = time.monotonic() + _START_S
    while text not in (log.read_text() if log.exists() else ""):
        if time.monotonic() > ends_s:
            raise RuntimeError(f"{log.name} does not say {text!r} after {_START_S:.0f} s: {log.read_text()[-1000:]}")
        time.sleep(0.1)


def _version() -> str:
    said = subprocess.run([_BIN / "flwr", "--version"], capture_output=True, text=True, check=False).stdout
    return said.strip()
