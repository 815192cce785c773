"""The same exported files on the oldest and the newest ONNX Runtime: do they answer the same?

Each runtime gets an environment of its own with the NumPy that it was made for. Needs pip's index.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import Figure, Result, at_least, at_most

__all__ = ["export_tiny", "run"]

_OLDEST = ("1.16.3", "1.17.3", "1.19.2", "1.20.1", "1.22.1")
_NETS = {"mlp-32": (1, 8, 8), "cnn-8-16": (1, 16, 16), "cnn1d-16": (6, 32), "leaf": (1, 8, 8), "resnet8-8": (1, 16, 16),
         "mobile-8-16": (1, 16, 16)}  # fmt: skip
_ANSWER = """
import json, sys
from pathlib import Path
import numpy as np
import onnxruntime
folder = Path(sys.argv[1])
for path in sorted(folder.glob("*/*.onnx")):
    x = np.load(path.parent / "inputs.npy")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    np.save(str(path) + sys.argv[2], session.run(None, {session.get_inputs()[0].name: x})[0])
print(json.dumps([onnxruntime.__version__, np.__version__]))
"""


def run(options: Sequence[str]) -> Result:
    """Exports small nets of every architecture and has both runtimes answer."""
    parser = argparse.ArgumentParser(prog="scripts/bench runtimes")
    parser.add_argument("--oldest", default="", help="this version and no other")
    asked = parser.parse_args(options)
    with tempfile.TemporaryDirectory(prefix="bitfleet-runtimes-") as name:
        folder = Path(name)
        for arch, shape in _NETS.items():
            export_tiny(folder / "files" / arch, arch, shape)
        old = _answered(folder, "old", [asked.oldest] if asked.oldest else _OLDEST)
        new = _answered(folder, "new", [""])
        worst = {profile: _worst(folder / "files", profile) for profile in ("int8", "float")}
        count = len(list(folder.glob("files/*/*.onnx")))
    figures: dict[str, Figure] = {
        "oldest_runtime": old[0], "oldest_numpy": old[1], "newest_runtime": new[0], "newest_numpy": new[1],
        "files": count, "int8_max_difference": worst["int8"], "float_max_difference": worst["float"],
    }  # fmt: skip
    limits = (
        at_most("int8 max difference", 0, worst["int8"]),
        at_most("float max difference", 1e-5, worst["float"]),
        at_least("files compared", 2 * 7 * len(_NETS), count),
    )
    return Result(figures, limits)


def export_tiny(folder: Path, arch: str, shape: tuple[int, ...]) -> Path:
    """Returns the folder with all files of an untrained net."""
    from export.ladder.make import Wish, make_ladder
    from export.ladder.source import Source
    from models.archs import spec_of
    from models.dataset import Dataset
    from models.init import initial
    from wire.bits import Bits

    spec = spec_of(arch, shape, 10, 1)
    words = Bits.of(1, arch, "inputs").words(128 * int(np.prod(shape)))
    x = ((words >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)).reshape(128, *shape)
    y = (words[:128] % np.uint64(10)).astype(np.int64)
    params = initial(spec)
    centres = {t.name: np.array([-0.05, 0.04], np.float32) for t in spec.trainable if len(t.shape) > 1}
    source = Source(spec, params, arch, Dataset(x, y), calibration=64, tables=centres)
    report = make_ladder(source, Wish(rounds=1), folder)
    if report["refused"]:
        raise RuntimeError(f"{arch}: {report['refused']}")
    np.save(folder / "inputs.npy", x[:32])
    return folder


def _answered(folder: Path, name: str, versions: Sequence[str]) -> tuple[str, str]:
    """Returns the versions of the first of these runtimes that installs, once it has answered for all files."""
    home, said = folder / name, ""
    venv.create(home, with_pip=True)
    for version in versions:
        wanted = [f"onnxruntime=={version}", "numpy<2"] if version and version < "1.19" else ["onnxruntime", "numpy"]
        if version and version >= "1.19":
            wanted = [f"onnxruntime=={version}", "numpy"]
        pip = [home / "bin" / "pip", "install", "--quiet", "--only-binary", ":all:", *wanted]
        done = subprocess.run([str(part) for part in pip], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            script = folder / "answer.py"
            script.write_text(_ANSWER)
            command = [str(home / "bin" / "python"), str(script), str(folder / "files"), f".{name}.npy"]
            found: Any = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            return str(found[0]), str(found[1])
        said = done.stderr.strip()[-400:]
    raise RuntimeError(f"none of {', '.join(versions) or 'the newest'} installs on Python {sys.version[:6]}: {said}")


def _worst(folder: Path, profile: str) -> float:
    pairs = [
        (path, path.with_name(path.name.replace(".old.", ".new."))) for path in folder.glob(f"*/{profile}-*.old.npy")
    ]
    return max(float(np.abs(np.load(old) - np.load(new)).max()) for old, new in pairs)
