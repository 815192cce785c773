"""What `bitfleet export` writes passes every check of the device: all nets, both profiles, centres and nested files."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
import torch

from coordinator.rollout.exported import read_export
from coordinator.rollout.publish import Edition, of_export
from edge_agent.info import runtime_version
from edge_agent.serving.nested.cutting import cut_header
from edge_agent.serving.policy import release
from edge_agent.serving.probe import probe_header
from edge_agent.serving.probe_child import answer
from edge_agent.serving.session import checked_options
from edge_agent.serving.static.graph import Expected, check_graph
from export.graph import float_graph, weights_of
from export.ladder.drafts import Wish
from export.ladder.make import make_ladder
from export.ladder.report import write_report
from export.ladder.source import Source
from models.archs import spec_of
from models.dataset import Dataset
from models.init import initial
from tests.edge_agent.boards import config
from wire.bits import Bits
from wire.sign import make_key

SHAPES = {
    "mlp-16": (1, 6, 6),
    "cnn-5-9": (2, 8, 8),
    "cnn1d-8": (3, 21),
    "leaf": (1, 8, 8),
    "resnet8-8": (1, 8, 8),
    "mobile-8-16": (1, 8, 8),
}
OUTPUTS, EXAMPLES, WIDTHS = 5, 60, (8, 5, 2)
OLD = release(runtime_version()) < (1, 25)
CENTRES = np.array([-0.4, -0.05, 0.1, 0.3], np.float32)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def source_of(arch) -> Source:
    """Returns a net with examples that it answers itself, and learned centres for its first weight."""
    spec = spec_of(arch, SHAPES[arch], OUTPUTS, 7)
    params = initial(spec)
    first = next(iter(weights_of(float_graph(spec, params))))
    x = Bits.of("examples", arch).uniform(EXAMPLES * prod(spec.input)).reshape(EXAMPLES, *spec.input)
    y = Source(spec, params, "tiny").answers({}, x).argmax(1).astype(np.int64)
    return Source(spec, params, "tiny", Dataset(x, y), 40, run="run-1", tables={first: CENTRES})


@pytest.fixture
def exported(tmp_path):
    """Returns a function that exports a net: (its manifest, its files by digest)."""

    def made(arch, nested, packing="planes"):
        out = tmp_path / "out"
        report = make_ladder(source_of(arch), Wish(WIDTHS, nested=nested, rounds=1, packing=packing), out)
        write_report(report, out, picture=False)
        export = read_export(out)
        make_key(tmp_path / "key")
        return of_export(export, Edition("test", 1, 1_800_000_000, 1, tmp_path / "key")), export.files

    return made


@pytest.mark.parametrize(
    ("nested", "packing"),
    [
        pytest.param(False, "planes", id="separate"),
        pytest.param(True, "planes", id="nested"),
        pytest.param(False, "native", id="native", marks=pytest.mark.skipif(OLD, reason="there is no UINT2 yet")),
    ],
)
@pytest.mark.parametrize("arch", SHAPES)
def test_every_file_passes_the_checks_and_the_probe(arch, nested, packing, exported, tmp_path):
    manifest, files = exported(arch, nested, packing)
    names = {variant.name for variant in manifest.variants}
    assert names == {f"{profile}-{rest}" for profile in ("int8", "float") for rest in (*WIDTHS, "centres")}
    expected = (manifest.input, manifest.outputs)
    for variant in manifest.variants:
        metadata = check_graph(files[variant.digest].read_bytes(), Expected(*expected, variant.operators))
        assert set(checked_options(metadata)) <= {"session.disable_quant_qdq"}
        header = probe_header(
            config(tmp_path / "state"), manifest, variant,
            path=files[variant.digest], golden=files[manifest.golden], free_bytes=None,
        )  # fmt: skip
        found = answer(header)
        assert (found["code"], found["reason"]) == ("", ""), variant.name
        assert found["latency_ms"] > 0


@pytest.mark.parametrize("arch", SHAPES)
def test_every_nested_file_is_cut_by_the_device(arch, exported, tmp_path):
    manifest, files = exported(arch, True)
    bundled = [variant for variant in manifest.variants if variant.bundle]
    assert len(bundled) == 2 * len(WIDTHS)
    for variant in bundled:
        (tmp_path / f"{variant.bundle}.part").write_bytes(files[variant.bundle].read_bytes()[: variant.prefix])
        found = answer(cut_header(config(tmp_path / "state"), variant, tmp_path))
        assert (found["code"], found["reason"]) == ("", ""), variant.name
        assert (tmp_path / variant.digest).read_bytes() == files[variant.digest].read_bytes()
