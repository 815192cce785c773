"""An export folder as `bitfleet export` leaves it, with files that hold only noise: nothing here runs a model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from wire.bits import Bits
from wire.messages.golden import encode_golden

__all__ = ["NAMES", "edit", "make_export"]

NAMES = {"int8-8": 8.0, "int8-4": 4.0, "float-4": 4.0}


def make_export(folder: Path, seed: int = 1, bundle: bool = False) -> Path:
    """Leaves a good export; another seed gives other bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = np.arange(6, dtype=np.float32).reshape(2, 3) + seed
    (folder / "golden.bin").write_bytes(encode_golden(inputs, dict.fromkeys(NAMES, inputs[:, :2])))
    if bundle:
        (folder / "nested.bin").write_bytes(_noise(seed, "nested", 9000))
    report = {
        "schema": 1,
        "model": "digits",
        "run": "run-1",
        "content": hashlib.sha256(str(seed).encode()).hexdigest(),
        "input": [3],
        "outputs": 2,
        "labels": ["no", "yes"],
        "preprocessing": "values / 16",
        "lineage": {"rounds": 10, "devices": 4, "epsilon": None},
        "machine": "laptop",
        "golden": "golden.bin",
        "variants": [_variant(folder, name, bits, seed, bundle) for name, bits in NAMES.items()],
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2))
    return folder


def edit(folder: Path, path: str, value: object) -> None:
    """Changes one field of the report; a value of `...` deletes it."""
    file = folder / "report.json"
    place: Any = json.loads(file.read_text())
    report, (*way, last) = place, path.split(".")
    for step in way:
        place = place[step] if isinstance(place, dict) else place[int(step)]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    file.write_text(json.dumps(report))


def _variant(folder: Path, name: str, bits: float, seed: int, bundle: bool) -> dict[str, Any]:
    data = _noise(seed, name, 400 * int(bits))
    (folder / f"{name}.onnx").write_bytes(data)
    return {
        "name": name,
        "profile": name.split("-", maxsplit=1)[0],
        "bits": bits,
        "file": f"{name}.onnx",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "operators": ["Gemm", "Relu"],
        "min_runtime": "1.16",
        "tolerance": 0.01,
        "accuracy": 0.9,
        "examples": 360,
        "latency_ms": 0.5,
        "load_ms": 3.0,
        "memory_bytes": None,
        "bundle": hashlib.sha256(_noise(seed, "nested", 9000)).hexdigest() if bundle and bits == 4.0 else "",
        "bundle_file": "nested.bin",
        "prefix": 5000 if bundle and bits == 4.0 else 0,
    }


def _noise(seed: int, name: str, size: int) -> bytes:
    return Bits.of("export", seed, name).words(-(-size // 8)).tobytes()[:size]
