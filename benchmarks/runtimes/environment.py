"""An environment with one ONNX Runtime, and what it answers for files."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_agent.serving.policy import release

__all__ = ["answered"]

_ANSWER = """
import json, sys
from pathlib import Path
import numpy as np
import onnxruntime
folder, name, forms = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
for path in sorted(each for form in forms for each in folder.glob(form + "/*/*.onnx")):
    x = np.load(path.parent / "inputs.npy")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    np.save(str(path) + "." + name + ".npy", session.run(None, {session.get_inputs()[0].name: x})[0])
print(json.dumps([onnxruntime.__version__, np.__version__]))
"""


def answered(work: Path, files: Path, name: str, forms: Sequence[str], versions: Sequence[str]) -> tuple[str, str]:
    """Returns the versions of the first of these runtimes that installs ("" is the newest) and of its NumPy, once it
    has left its answers to the files of these forms beside them, as FILE.NAME.npy.
    """
    home, said = work / name, ""
    venv.create(home, with_pip=True)
    for version in versions:
        command = [str(home / "bin" / "pip"), "install", "--quiet", "--only-binary", ":all:", *_wanted(version)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            script = work / "answer.py"
            script.write_text(_ANSWER)
            words = [str(home / "bin" / "python"), str(script), str(files), name, *forms]
            run = subprocess.run(words, capture_output=True, text=True, check=False)
            if run.returncode:
                raise RuntimeError(f"onnxruntime {version or 'newest'}: {run.stderr.strip()[-400:]}")
            found: Any = json.loads(run.stdout)
            return str(found[0]), str(found[1])
        said = done.stderr.strip()[-400:]
    raise RuntimeError(f"none of {', '.join(versions) or 'the newest'} installs on Python {sys.version[:6]}: {said}")


def _wanted(version: str) -> list[str]:
    """Returns the requirements of a runtime and the NumPy that it was made for."""
    if not version:
        return ["onnxruntime", "numpy"]
    return [f"onnxruntime=={version}", "numpy<2" if release(version) < (1, 19) else "numpy"]
