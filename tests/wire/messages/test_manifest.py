"""Manifests: what comes back is what was signed, every field has its limits, and the key is the one it names."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.messages.golden import GOLDEN
from tests.wire.messages.samples import MADE, MANIFEST, MODEL_KEY, signed
from wire.errors import WireError
from wire.frame import Kind, decode_frame, encode_frame
from wire.messages.manifest import (
    MANIFEST_BYTES,
    MOST_VARIANTS,
    PROFILES,
    Manifest,
    Measured,
    Variant,
    encode_manifest,
    key_id,
    read_manifest,
)
from wire.sign import check_signature, public_key

DIGEST = st.integers(0, (1 << 256) - 1).map(lambda number: f"{number:064x}")
NAME, TEXT = st.text("abc-", min_size=1, max_size=32), st.text("xyz é", max_size=60)
MAYBE = st.none() | st.floats(0, 1e9)
MEASURED = st.builds(
    Measured, TEXT, st.none() | st.floats(0, 1), st.integers(0, 1 << 40), MAYBE, MAYBE, st.none() | st.integers(0, 9)
)
PLACE = st.just(("", 0)) | st.tuples(DIGEST, st.integers(1, 1 << 40))
VARIANT = st.builds(
    lambda place, **known: Variant(bundle=place[0], prefix=place[1], **known),
    PLACE,
    name=NAME,
    profile=st.sampled_from(PROFILES),
    bits=st.floats(0.5, 32),
    digest=DIGEST,
    size=st.integers(1, 1 << 40),
    operators=st.lists(TEXT, max_size=4).map(tuple),
    min_runtime=st.text("1.6", max_size=20),
    tolerance=st.floats(0, 1e6),
    measured=MEASURED,
)
MANIFESTS = st.builds(
    Manifest,
    fleet=NAME,
    model=NAME,
    version=st.integers(1, 1 << 53),
    content=DIGEST,
    created_s=st.integers(0, 1 << 36),
    expires_s=st.integers(1, 1 << 36),
    key=st.text("abcdef01", min_size=16, max_size=16),
    input=st.lists(st.integers(1, 1 << 24), min_size=1, max_size=8).map(tuple),
    outputs=st.integers(1, 1 << 24),
    labels=st.lists(TEXT, max_size=4).map(tuple),
    preprocessing=TEXT,
    lineage=st.dictionaries(TEXT, st.none() | st.integers(0, 9) | TEXT, max_size=4),
    golden=DIGEST,
    golden_bytes=st.integers(1, 1 << 26),
    variants=st.lists(VARIANT, min_size=1, max_size=4, unique_by=lambda variant: variant.name).map(tuple),
    parent=st.integers(0, 1 << 53),
)


def read(data: bytes) -> Manifest:
    return read_manifest(decode_frame(data, Kind.MANIFEST, MANIFEST_BYTES))


@given(MANIFESTS)
def test_round_trip(manifest):
    assert read(encode_manifest(manifest, signed)) == manifest


def test_golden_bytes():
    assert MADE["manifest"]().hex() == GOLDEN["manifest"]
    assert read(bytes.fromhex(GOLDEN["manifest"])) == MANIFEST


def test_the_key_that_it_names_is_the_one_that_signed_it(tmp_path):
    (tmp_path / "key").write_text(MODEL_KEY.hex())
    public = public_key(tmp_path / "key")
    frame = decode_frame(MADE["manifest"](), Kind.MANIFEST)
    check_signature(frame, public)
    assert read_manifest(frame).key == key_id(public)
    changed = encode_manifest(replace(MANIFEST, version=4), lambda _: bytes(frame.signature))
    with pytest.raises(WireError) as caught:
        check_signature(decode_frame(changed, Kind.MANIFEST), public)
    assert caught.value.code == "E-SIGNATURE"


def changed(field: str, value: object) -> bytes:
    place = header = asdict(MANIFEST)
    *path, last = field.split(".")
    for step in path:
        place = place[step] if isinstance(place, dict) else place[int(step)]
    place[last] = value
    return encode_frame(Kind.MANIFEST, header)


@pytest.mark.parametrize("field", list(asdict(MANIFEST)))
def test_every_field_is_needed(field):
    header = {name: value for name, value in asdict(MANIFEST).items() if name != field}
    with pytest.raises(WireError, match=field):
        read(encode_frame(Kind.MANIFEST, header))


ONE = asdict(MANIFEST)["variants"][0]
WRONG = {
    "fleet": ["", "A", "x" * 33, None],
    "model": ["", "a/b", 7],
    "version": [0, -1, 1.0, True, (1 << 53) + 1],
    "content": ["", "0" * 63, "G" * 64],
    "created_s": [-1, 1 << 37, 0.5],
    "expires_s": [0, 1 << 37],
    "key": ["x" * 17, None],
    "input": [[], [0], [1.0], [True], [1] * 9, 3, None],
    "outputs": [0, (1 << 24) + 1],
    "labels": [None, [1], ["x" * 201], ["x"] * 4097],
    "preprocessing": [None, "x" * 1001],
    "lineage": [None, [], "run"],
    "golden": ["", None],
    "golden_bytes": [0, (1 << 26) + 1],
    "parent": [-1, None],
    "variants": [[], {}, [1], None, [ONE, ONE], [ONE] * (MOST_VARIANTS + 1)],
    "variants.0.name": ["", "A", None],
    "variants.0.profile": ["", "int4"],
    "variants.0.bits": [0, 33, "4", True, 10**400],
    "variants.0.digest": ["", None],
    "variants.0.size": [0, 1.5, (1 << 40) + 1],
    "variants.0.operators": [None, [1], ["Conv"] * 65],
    "variants.0.min_runtime": [1.16, "1" * 21],
    "variants.0.tolerance": [-0.1, None, 2e6],
    "variants.0.bundle": ["0", None, "0" * 64],
    "variants.0.prefix": [-1, 1],
    "variants.0.measured": [None, [], {}],
    "variants.0.measured.on": [None, "x" * 201],
    "variants.0.measured.accuracy": [1.1, -0.1, "0.9", True],
    "variants.0.measured.examples": [-1, None],
    "variants.0.measured.latency_ms": [-1, "1"],
    "variants.0.measured.load_ms": [2e9],
    "variants.0.measured.memory_bytes": [-1, 0.5],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in WRONG.items() for value in values])
def test_wrong_fields(field, value):
    with pytest.raises(WireError) as caught:
        read(changed(field, value))
    assert caught.value.code == "E-FRAME"


def test_a_manifest_has_no_payload_and_a_limit():
    with pytest.raises(WireError, match="payload"):
        read(encode_frame(Kind.MANIFEST, asdict(MANIFEST), b"x"))
    with pytest.raises(WireError) as caught:
        read(encode_manifest(replace(MANIFEST, lineage={"x": "y" * MANIFEST_BYTES}), signed))
    assert caught.value.code == "E-SIZE"
