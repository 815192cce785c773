"""Small nets of every architecture, untrained, as files of every form that the export writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from export.ladder.make import Wish

__all__ = ["NATIVE", "NETS", "PLAIN", "export_all", "export_tiny"]

NETS = {"mlp-32": (1, 8, 8), "cnn-8-16": (1, 16, 16), "cnn1d-16": (6, 32), "leaf": (1, 8, 8), "resnet8-8": (1, 16, 16),
        "mobile-8-16": (1, 16, 16), "steps": (5, 8)}  # fmt: skip
"""By architecture the shape of an input; `steps` has Linear layers on the steps of a series."""
PLAIN = ("even", "nested", "mixed")
"""The folders of what the oldest runtime must read: standard operators of opset 18."""
NATIVE = {4: ("1.23.0", "1.23.2"), 2: ("1.25.0", "1.25.1")}
"""By width of `--packing native` the runtimes that read it first, the one to try first in front."""
_OUTPUTS = 10


def export_all(folder: Path, native: tuple[int, ...]) -> list[dict[str, Any]]:
    """Leaves FORM/NET/NAME.onnx for each form and net, and for these widths native-WIDTH/NET; returns all entries."""
    from unittest.mock import patch

    from export.ladder.make import Wish
    from export.ladder.mixed import Budget
    from models import archs

    found: list[dict[str, Any]] = []
    with patch.dict(archs._BUILT_IN, {"steps": archs.Arch(build=_steps)}):
        for arch, shape in NETS.items():
            even = _exported(folder / "even" / arch, arch, shape, Wish(rounds=1))
            size = next(one["bytes"] for one in even if one["name"] == "int8-4")
            wishes = {"nested": Wish(nested=True, rounds=1), "mixed": Wish((), budget=Budget(size), rounds=1)}
            wishes |= {f"native-{bits}": Wish((bits,), packing="native", rounds=1) for bits in native}
            found += even
            for form, wish in wishes.items():
                found += _exported(folder / form / arch, arch, shape, wish, centres=False)
    return found


def export_tiny(folder: Path, arch: str, shape: tuple[int, ...]) -> Path:
    """Returns the folder with all even files of an untrained net, and those of learned centres."""
    from export.ladder.make import Wish

    _exported(folder, arch, shape, Wish(rounds=1))
    return folder


def _exported(
    folder: Path, arch: str, shape: tuple[int, ...], wish: Wish, *, centres: bool = True
) -> list[dict[str, Any]]:
    from export.ladder.make import make_ladder
    from export.ladder.source import Source
    from models.archs import spec_of
    from models.dataset import Dataset
    from models.init import initial
    from wire.bits import Bits

    spec = spec_of(arch, shape, _OUTPUTS, 1)
    words = Bits.of(1, arch, "inputs").words(128 * int(np.prod(shape)))
    x = ((words >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24)).reshape(128, *shape)
    y = (words[:128] % np.uint64(_OUTPUTS)).astype(np.int64)
    weights = [one.name for one in spec.trainable if len(one.shape) > 1] if centres else []
    tables: Mapping[str, Any] = {name: np.array([-0.05, 0.04], np.float32) for name in weights}
    source = Source(spec, initial(spec), arch, Dataset(x, y), calibration=64, tables=tables)
    report = make_ladder(source, wish, folder)
    if report["refused"]:
        raise RuntimeError(f"{arch}: {report['refused']}")
    np.save(folder / "inputs.npy", x[:32])
    return list(report["variants"])


def _steps(shape: tuple[int, ...], outputs: int, args: tuple[int, ...]) -> Any:
    """Returns a net that torch writes with MatMul: Linear layers on the steps of a series, one without bias."""
    from torch import nn

    steps, features = shape
    inner = [nn.Linear(features, 48), nn.ReLU(), nn.Linear(48, 16, bias=False), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*inner, nn.Linear(16 * steps, outputs))
