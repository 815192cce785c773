"""A device that serves models, as a real process, and the commands that a person says to it and to the coordinator."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from coordinator.home import keys_of
from coordinator.rollout.run import run_rollout
from coordinator.rollout.stages import Rollout
from coordinator.rollout.start import Request, start_rollout
from coordinator.service import Serving
from edge_agent.__main__ import main as agent_main
from wire.links.link import parse_link
from wire.messages.golden import decode_golden
from wire.params import Array
from wire.pipe import die_with_parent

__all__ = [
    "FLEET",
    "ROOT",
    "STAGE_S",
    "Board",
    "call",
    "check_answers",
    "export",
    "golden_of",
    "leave_rows",
    "report_of",
    "roll_out",
    "train",
    "with_accuracies",
]

ROOT = Path(__file__).parents[3]
FLEET, _SIMULATED = "test", "simulated"
STAGE_S = 240.0
"""A device that says nothing for so long fails the test."""


@dataclass
class Board:
    """One device: its configuration below `folder`, and its agent once it is started."""

    folder: Path
    name: str
    broker: str
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    agent: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / f"{self.name}.toml"

    @property
    def state_dir(self) -> Path:
        return self.folder / self.name

    @property
    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text(errors="replace")

    def start(self, **policy: Any) -> None:
        """Starts the agent with these [model] settings."""
        plans, models = keys_of(self.home)
        lines = [f'device = "{self.name}"', f'fleet = "{FLEET}"', f'broker = "{self.broker}"']
        lines += [f'state_dir = "{self.state_dir}"', f'coordinator_key = "{plans}"', f'model_keys = ["{models}"]']
        lines += [
            "[data]",
            'task = "echo"',
            "[model]",
            *(f"{key} = {json.dumps(value)}" for key, value in policy.items()),
        ]
        self.config.write_text("\n".join([*lines, ""]))
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.agent = subprocess.Popen(
                [sys.executable, "-m", "edge_agent", "run", "--config", str(self.config)],
                cwd=ROOT, env={**os.environ, **self.environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                preexec_fn=die_with_parent,
            )  # fmt: skip

    def stop(self) -> None:
        """Ends the agent, if it runs."""
        if self.agent is not None:
            self.agent.terminate()
            try:
                self.agent.wait(15)
            except subprocess.TimeoutExpired:
                self.agent.kill()
                self.agent.wait()

    @property
    def runs(self) -> bool:
        """Tells whether the agent that was started is still the one that runs."""
        return self.agent is not None and self.agent.poll() is None

    def says(self, *words: str) -> dict[str, Any]:
        """Returns what `bitfleet-agent WORDS --json` prints; it is run in this process, which takes less time."""
        printed = io.StringIO()
        with redirect_stdout(printed):
            assert agent_main([*words, "--config", str(self.config), "--json"]) == 0
        told: dict[str, Any] = json.loads(printed.getvalue())
        return told


def call(module: str, *words: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, which must be with this exit status."""
    done = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == status, f"{module} {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def train(folder: Path, net: str, rounds: int) -> None:
    """Trains a net on digits, in a home of its own below the folder."""
    recipe = ["--recipe", "fedavg", "--set", f'model="{net}"', "--rounds", str(rounds), "--clients-per-round", "2"]
    call("coordinator", "simulate", *recipe, "--dir", str(folder / _SIMULATED))


def export(folder: Path, out: Path, bits: str, *words: str) -> Path:
    """Returns where the files of the net that was trained in the folder are, once they are."""
    home = str(folder / _SIMULATED / "home")
    call("coordinator", "export", "--home", home, "--bits", bits, "--calibration", "128", "--out", str(out), *words)
    return out


def golden_of(exports: Path) -> tuple[Array, dict[str, Array]]:
    """Returns the golden inputs of an export, and the outputs by variant."""
    return decode_golden((exports / "golden.bin").read_bytes())


def report_of(exports: Path) -> dict[str, Any]:
    """Returns the report of an export."""
    report: dict[str, Any] = json.loads((exports / "report.json").read_text())
    return report


def with_accuracies(exports: Path, known: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Returns the variants of an export by name, once its report states these accuracies."""
    report = report_of(exports)
    for entry in report["variants"]:
        entry["accuracy"] = known.get(entry["name"], entry["accuracy"])
    (exports / "report.json").write_text(json.dumps(report))
    return {entry["name"]: entry for entry in report["variants"]}


def leave_rows(path: Path, rows: Array) -> Path:
    """Leaves examples in a file for `bitfleet-agent infer`."""
    np.save(path, rows, allow_pickle=False)
    return path


def roll_out(home: Path, broker: str, exports: Path, device: str, least_version: int = 1) -> Rollout:
    """Rolls an export out to one device, in this process; returns how it ended: a failed device does not hold it."""
    request = Request(
        FLEET, exports, devices=(device,), stage_s=STAGE_S, without=("failed",), least_version=least_version
    )
    serving = Serving(home, FLEET, parse_link(broker))
    return run_rollout(serving, lambda opened: start_rollout(opened, request, int(time.time())))


def check_answers(board: Board, exports: Path, variant: str, version: int = 1) -> None:
    """The board answers the golden inputs as this variant does, and as none of the others."""
    inputs, golden = golden_of(exports)
    told = board.says("infer", str(leave_rows(board.folder / "golden.npy", inputs)))
    outputs = np.array(told["outputs"])
    tolerance = next(one["tolerance"] for one in report_of(exports)["variants"] if one["name"] == variant)
    assert (told["version"], told["variant"]) == (version, variant)
    assert outputs.shape == golden[variant].shape
    assert np.abs(outputs - golden[variant]).max() <= tolerance
    assert told["answers"] == [str(at) for at in golden[variant].argmax(1)]  # the digits' labels are their numbers
    apart = {name: float(np.abs(outputs - values).max()) for name, values in golden.items()}
    assert min(apart.values()) == apart[variant]
