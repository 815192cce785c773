"""What is fetched of a bundle and when, and the job of cutting: by itself, and in a real child."""

from __future__ import annotations

import time
import zlib
from dataclasses import replace

import pytest

from edge_agent.serving.nested.cutting import cut_header
from edge_agent.serving.nested.portion import portion_of
from edge_agent.serving.probe import Probe
from edge_agent.serving.probe_child import answer
from tests.edge_agent.boards import config
from tests.edge_agent.serving.stage.bundles import nested
from tests.edge_agent.serving.stage.files import Publisher
from tests.edge_agent.serving.stage.sides import WAIT_S
from wire.pieces.assembly import Assembly
from wire.pieces.chunks import Chunk
from wire.spec import canonical_json


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def of_eight(tmp_path, **changes):
    manifest = nested().manifest(Publisher(tmp_path), 1, **changes)
    return manifest.variants[0], manifest


def test_the_rule_counts_what_is_lacking(tmp_path, store):
    made = nested()
    variant, manifest = of_eight(tmp_path)
    assert variant.prefix > variant.size
    assert portion_of(variant, manifest, store).lacking == made.need[8], "another width may follow"
    alone, lonely = of_eight(tmp_path, plain=(6, 4))
    assert portion_of(alone, lonely, store) is None, "none can follow, and the file is smaller"
    Assembly.open(store, made.digest, 600, portion=True).put(Chunk(made.digest, 600, 0, memoryview(bytes(600))))
    small = replace(variant, size=-(-(variant.prefix - 600) * 4 // 5))
    assert portion_of(small, manifest, store).lacking == made.need[8] - 600
    assert portion_of(replace(small, size=small.size - 1), manifest, store) is None, "more than a quarter more"
    (store / variant.digest).write_bytes(b"")
    assert portion_of(variant, manifest, store) is None, "the file is here"
    assert portion_of(replace(variant, bundle="", digest="0" * 64), manifest, store) is None


def test_a_file_that_is_half_here_is_not_left_for_the_bundle(tmp_path, store):
    variant, manifest = of_eight(tmp_path)
    half = variant.size // 2
    Assembly.open(store, variant.digest, variant.size).put(
        Chunk(variant.digest, variant.size, 0, memoryview(bytes(half)))
    )
    assert portion_of(variant, manifest, store) is None


def cutting(tmp_path, store, portion, **changes):
    variant, _ = of_eight(tmp_path)
    variant = replace(variant, **changes)
    header = cut_header(config(tmp_path / "state"), variant, store)
    (store / f"{variant.bundle}.part").write_bytes(portion)
    return header, store / variant.digest


def test_only_the_file_that_the_manifest_names_is_left(tmp_path, store):
    made = nested()
    header, path = cutting(tmp_path, store, made.bundle)
    assert answer(header)["code"] == ""
    assert path.read_bytes() == made.files[8]
    header, path = cutting(tmp_path, store, made.bundle, digest="1" * 64)
    assert answer(header)["code"] == "E-BUNDLE"
    assert not path.exists()
    header, path = cutting(tmp_path, store, made.bundle[: made.need[8] - 1], digest="2" * 64)
    assert answer(header)["code"] == "E-BUNDLE"


def test_a_width_is_known_by_its_file_whatever_the_bits_a_weight_are(tmp_path, store):
    header, path = cutting(tmp_path, store, nested().bundle, bits=9.7)  # as of a net with weights that stay float
    assert answer(header)["code"] == ""
    assert path.read_bytes() == nested().files[8]


def bomb() -> bytes:
    """Returns the beginning of a bundle whose header takes some hundred megabytes to read."""
    text = zlib.compress(canonical_json({"layers": [], "widths": []})[:-1] + b',"x":[' + b"[]," * 5_000_000 + b"[]]}")
    return b"BFNB" + len(text).to_bytes(4, "little") + text


def test_a_header_that_takes_too_much_memory_ends_the_child_and_nothing_else(tmp_path, store):
    header, path = cutting(tmp_path, store, bomb(), prefix=100_000)
    probe = Probe(0)
    probe.start(header, time.monotonic())
    ends_s = time.monotonic() + WAIT_S
    while (found := probe.poll(time.monotonic())) is None:
        assert time.monotonic() < ends_s
        time.sleep(0.01)
    assert found.code in ("E-MODEL-LOAD", "E-MODEL-CRASH")
    assert not path.exists()
