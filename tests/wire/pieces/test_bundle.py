"""Any width is cut from a prefix of one bundle, byte for byte; anything else is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.bits import Bits
from wire.errors import WireError
from wire.pieces.bundle import cut, make_bundle, prefixes, width_of

WIDTHS = (2, 3, 4, 6, 8)


def planes_of(lengths, seed=1):
    words = Bits.of(seed, "planes").words(8 * sum(lengths)).tobytes()
    found, at = {}, 0
    for layer, length in enumerate(lengths):
        found[f"layer{layer}"] = [words[at + plane * length : at + (plane + 1) * length] for plane in range(8)]
        at += 8 * length
    return found


def file_of(bits, planes):
    return b"graph of %d bits" % bits + b"".join(
        name.encode() + b"".join(each[:bits]) + b"scales %d" % bits for name, each in planes.items()
    )


def made(lengths, seed=1):
    planes = planes_of(lengths, seed)
    files = {bits: file_of(bits, planes) for bits in WIDTHS}
    return files, make_bundle(files, planes)


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=5), bits=st.sampled_from(WIDTHS))
def test_every_width_comes_out_of_its_prefix(lengths, bits):
    files, bundle = made(lengths)
    prefix = bundle[: prefixes(bundle)[bits]]
    assert cut(prefix, bits) == files[bits]
    assert cut(bundle, bits) == files[bits]


def test_more_bits_cost_only_their_planes():
    lengths = [200, 1000, 64]
    files, bundle = made(lengths)
    need = prefixes(bundle)
    assert need[8] - need[4] == 4 * sum(lengths)
    assert need[8] == len(bundle)
    assert len(bundle) < len(files[8]) + 1500


def test_layers_with_equal_bytes_are_no_trouble():
    planes = {name: [b"\0" * 100] * 8 for name in ("a", "b", "c")}
    files = {bits: file_of(bits, planes) for bits in WIDTHS}
    bundle = make_bundle(files, planes)
    assert all(cut(bundle, bits) == files[bits] for bits in WIDTHS)


def test_a_file_without_its_planes_is_refused():
    planes = planes_of([100])
    with pytest.raises(WireError, match="E-BUNDLE"):
        make_bundle({4: b"another file altogether"}, planes)


def test_the_width_of_a_file_is_known_by_its_digest():
    files, bundle = made([100, 70])
    for bits, file in files.items():
        assert width_of(bundle[: prefixes(bundle)[2]], hashlib.sha256(file).hexdigest()) == bits
    with pytest.raises(WireError, match="no file 111111111111"):
        width_of(bundle, "1" * 64)


@pytest.mark.parametrize("bits", [1, 5])
def test_a_width_that_was_not_bundled_is_refused(bits):
    with pytest.raises(WireError, match="no width"):
        cut(made([100])[1], bits)


def test_a_prefix_that_is_too_short_says_what_it_takes():
    _, bundle = made([100])
    need = prefixes(bundle)[4]
    with pytest.raises(WireError, match=str(need)):
        cut(bundle[: need - 1], 4)


@given(at=st.integers(0, 10_000), value=st.integers(1, 255), bits=st.sampled_from(WIDTHS))
def test_a_flipped_byte_gives_the_file_or_a_refusal(at, value, bits):
    files, bundle = made([100, 70])
    at %= len(bundle)
    wrong = bundle[:at] + bytes([bundle[at] ^ value]) + bundle[at + 1 :]
    try:
        assert cut(wrong, bits) == files[bits]
    except WireError as exc:
        assert exc.code == "E-BUNDLE"


@given(data=st.binary(max_size=200))
def test_rubbish_is_refused(data):
    with pytest.raises(WireError):
        cut(data, 4)
    with pytest.raises(WireError):
        cut(b"BFNB" + data, 4)


@pytest.mark.parametrize("files", [{}, {8: b"x" * 900}])
def test_what_cannot_be_a_bundle_is_refused(files):
    planes = {name: each[:4] for name, each in planes_of([100]).items()}
    with pytest.raises(WireError, match="without all their planes"):
        make_bundle(files, planes)


def forged(**changes):
    """Returns a bundle of one layer of 4 bytes and one file of 2 bits, with changes in its header."""
    planes, text = b"abcdefgh", b"[]"
    file = b"[" + planes + b"]"
    width = {"bits": 2, "size": 10, "sha256": hashlib.sha256(file).hexdigest(), "holes": [[1, 0]],
             "skeleton": base64.b85encode(text).decode()}  # fmt: skip
    whole = {"layers": [4], "widths": [width]}
    whole.update({name: value for name, value in changes.items() if name in whole})
    width.update({name: value for name, value in changes.items() if name in width})
    header = zlib.compress(json.dumps(whole).encode())
    return b"BFNB" + len(header).to_bytes(4, "little") + header + planes


def test_the_forged_one_is_right_as_long_as_nothing_is_changed():
    assert cut(forged(), 2) == b"[abcdefgh]"


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": [1 << 32]},
        {"layers": [-4]},
        {"layers": [4.0]},
        {"layers": "4"},
        {"layers": [True]},
        {"layers": [1 << 31]},
        {"widths": []},
        {"widths": {}},
        {"widths": [1]},
        {"bits": 9},
        {"bits": "2"},
        {"size": 7},
        {"size": 1 << 40},
        {"sha256": None},
        {"holes": [[1, 1]]},
        {"holes": [[1, -1]]},
        {"holes": [[2, 0], [1, 0]]},
        {"holes": [[1, 0], [1, 0]]},
        {"holes": [[1, 0]] * 1000},
        {"holes": [[1 << 30, 0]]},
        {"holes": [1]},
        {"holes": None},
        {"skeleton": "\u00e9"},
        {"skeleton": 5},
        {"skeleton": ""},
    ],
)
def test_a_header_that_lies_is_refused(changes):
    with pytest.raises(WireError) as refused:
        cut(forged(**changes), 2)
    assert refused.value.code == "E-BUNDLE"


@pytest.mark.parametrize("text", [b"[" * 100_000, b"null", b"[]", b'"x"', b"\xff", b"\0" * (17 << 20)])
def test_a_header_that_is_no_object_is_refused(text):
    header = zlib.compress(text)
    for data in (b"BFNB" + len(header).to_bytes(4, "little") + header, b"BFNB\xff\xff\xff\xff" + header):
        with pytest.raises(WireError, match="E-BUNDLE"):
            cut(data, 2)
        with pytest.raises(WireError, match="E-BUNDLE"):
            prefixes(data)
