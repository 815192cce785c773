"""What `edge_agent.Model` costs an application in memory, beyond ONNX Runtime with the very same model open.

Three fresh processes, each measured after it has answered: NumPy and the runtime alone, the same with the file opened
by hand, and the application's call that follows switches.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from benchmarks.result import Figure, Result, at_most

__all__ = ["run"]

_ARCH, _SHAPE = "cnn-64-128-256-256", (1, 28, 28)
_LIMIT_MB = 60
_RESIDENT = """
import sys, json
import numpy as np
x = np.zeros((1, 1, 28, 28), np.float32)
{body}
pages = int(open("/proc/self/statm").read().split()[1])
import os
print(json.dumps(pages * os.sysconf("SC_PAGE_SIZE") / 1e6))
"""
_BODIES = {
    "runtime": "import onnxruntime",
    "by_hand": """
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1] + "/a/model.onnx", options, providers=["CPUExecutionProvider"])
session.run(None, {"input": x})
""",
    "model": """
from edge_agent import Model
model = Model.current(sys.argv[1] + "/..")
model.predict(x)
""",
}


def run(options: Sequence[str]) -> Result:
    """Puts a file into a device's slot and opens it in three ways."""
    argparse.ArgumentParser(prog="scripts/bench serving").parse_args(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "models"
        bits = _staged(folder, Path(name))
        resident = {way: _resident_mb(body, folder) for way, body in _BODIES.items()}
    beyond = resident["model"] - resident["by_hand"]
    figures: dict[str, Figure] = {"arch": _ARCH, "bits": bits, **{f"{way}_mb": mb for way, mb in resident.items()}}
    figures |= {"model_beyond_by_hand_mb": beyond, "model_beyond_runtime_mb": resident["model"] - resident["runtime"]}
    limit = at_most("Model beyond the runtime alone, MB", _LIMIT_MB, resident["model"] - resident["runtime"])
    return Result(figures, (limit,))


def _staged(folder: Path, work: Path) -> int:
    """Leaves an int8 file of 4 bits in a slot, healthy, as a roll-out does."""
    from benchmarks.runtimes import export_tiny
    from edge_agent.serving.slots import commit, stage, switch

    path = export_tiny(work / "export", _ARCH, _SHAPE) / "int8-4.onnx"
    folder.mkdir()
    data = path.read_bytes()
    facts = {"version": 1, "digest": sha256(data).hexdigest(), "variant": "int8-4", "manifest": "0" * 64,
             "input": list(_SHAPE), "outputs": 10, "labels": [str(at) for at in range(10)]}  # fmt: skip
    switch(folder, stage(folder, path, facts))
    commit(folder)
    return 4


def _resident_mb(body: str, folder: Path) -> float:
    script = _RESIDENT.replace("{body}", body)
    command = [sys.executable, "-c", script, str(folder)]
    return float(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
