"""Tiny models to export, with examples that they answer themselves, so that every loss comes from rounding."""

from __future__ import annotations

from functools import cache
from math import prod

import numpy as np
import pytest
import torch

from export.ladder.drafts import Wish
from export.ladder.make import make_ladder
from export.ladder.report import write_report
from export.ladder.source import Source
from models.archs import spec_of
from models.dataset import Dataset
from models.init import initial
from wire.bits import Bits

SHAPES = {
    "mlp-32": (1, 6, 6),
    "cnn-8-16": (2, 8, 8),
    "cnn1d-8-24": (3, 21),
    "resnet8-8": (1, 8, 8),
    "mobile-8-16": (1, 8, 8),
}
EXAMPLES = 120
CALIBRATION = 70
OUTPUTS = 5


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Lets torch take one of the cores, which other tests want too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def weighed(monkeypatch):
    """Spares every file the process that measures its memory, which test_runtime.py tries."""
    monkeypatch.setattr("export.ladder.make.memory_of", lambda data, inputs: 3_000_000)


@cache
def source_of(arch, examples=EXAMPLES, freeze=(), outputs=OUTPUTS, **options):
    spec = spec_of(arch, SHAPES[arch], outputs, 7, freeze)
    params = {name: spread(name, value) for name, value in initial(spec).items()}
    source = Source(spec, params, "tiny", None, CALIBRATION, run="run-1", **options)
    if not examples:
        return source
    x = Bits.of("examples", arch).uniform(examples * prod(spec.input)).reshape(examples, *spec.input)
    y = source.answers({}, x).argmax(1).astype(np.int64)
    return Source(spec, params, "tiny", Dataset(x, y), CALIBRATION, run="run-1", **options)


def spread(name, value):
    """Returns a tensor whose channels are of unlike size, as training leaves them."""
    bits = Bits.of("spread", name)
    size = np.exp2(2 * bits.uniform(len(value)) - 1).astype(np.float32)
    if value.ndim == 1:
        return value + size * np.float32(0.1)
    bell = bits.uniform(value.size).reshape(value.shape) * 2 - 1
    return np.asarray(value * bell * np.float32(2) * size.reshape(-1, *[1] * (value.ndim - 1)), np.float32)


@pytest.fixture
def source():
    """Returns a function from an architecture, and options, to a Source."""
    return source_of


@pytest.fixture
def export(tmp_path):
    """Returns a function that makes a ladder and its report: (report, folder)."""

    def made(source, *, out=tmp_path / "out", **wish):
        wish = {"bits": (8, 4, 2), "rounds": 1, **wish}
        report = make_ladder(source, Wish(**wish), out)
        write_report(report, out, picture=False)
        return report, out

    return made
