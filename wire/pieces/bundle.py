"""One blob from whose first bytes any width can be cut: all bit planes, the most significant of every layer first.

    offset  bytes  field
    0       4      magic "BFNB"
    4       4      bytes H of the header, little-endian
    8       H      header: canonical JSON, deflated
    8+H     ...    plane 0 of every layer, plane 1 of every layer, ...

A file of b bits is its skeleton (the graph and what belongs to that width alone: scales and offsets) with planes 0 to
b - 1 put into its holes, so a device that has b bits fetches only the planes after them for more. Standard library
only: devices cut too. What was cut is right if its SHA-256 is the manifest's.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any

from wire.errors import WireError
from wire.spec import canonical_json, parse_json

__all__ = ["Planes", "cut", "make_bundle", "prefixes", "width_of"]

_MAGIC = b"BFNB"
_HEAD = 8
_LEAST_BYTES = 64  # shorter planes stay in the skeletons: they could be taken for something else
_MOST_HEADER = 16 << 20
_MOST_FILE = 1 << 31

Planes = Mapping[str, Sequence[bytes]]
"""The planes of each layer, the most significant first, all of a layer equally long."""


@dataclass(frozen=True, slots=True)
class _Skeleton:
    """One width: its file without planes. A hole is (where in the file, layer)."""

    bits: int
    size: int
    digest: str
    text: bytes
    holes: tuple[tuple[int, int], ...]


def make_bundle(files: Mapping[int, bytes], planes: Planes) -> bytes:
    """Returns the bundle of the files by width. A file holds the first planes of each layer in one piece, in order."""
    if not files or any(len(each) < max(files) for each in planes.values()):
        raise WireError(f"a bundle of {len(files)} files without all their planes", code="E-BUNDLE")
    layers = [layer for layer, each in planes.items() if len(each[0]) >= _LEAST_BYTES]
    skeletons = [_skeleton(bits, files[bits], [planes[layer][:bits] for layer in layers]) for bits in sorted(files)]
    header = {
        "layers": [len(planes[layer][0]) for layer in layers],
        "widths": [
            {"bits": one.bits, "size": one.size, "sha256": one.digest, "holes": one.holes,
             "skeleton": base64.b85encode(one.text).decode()}
            for one in skeletons
        ],
    }  # fmt: skip
    text = zlib.compress(canonical_json(header), 9)
    depth = max(files)
    body = b"".join(planes[layer][at] for at in range(depth) for layer in layers)
    return _MAGIC + len(text).to_bytes(4, "little") + text + body


def prefixes(bundle: bytes) -> dict[int, int]:
    """Returns how many bytes of the bundle each width needs."""
    header, start = _header(bundle)
    step = sum(header["layers"])
    return {one["bits"]: start + one["bits"] * step for one in header["widths"]}


def width_of(prefix: bytes, digest: str) -> int:
    """Returns the width of the file with this SHA-256, by the header's word; WireError if there is none."""
    header, _ = _header(prefix)
    bits = next((one["bits"] for one in header["widths"] if one["sha256"] == digest), None)
    if bits is None:
        raise WireError(f"the bundle has no file {digest[:12]}...", code="E-BUNDLE")
    return int(bits)


def cut(prefix: bytes, bits: int) -> bytes:
    """Returns the file of this width; `prefix` may end where its planes do. Raises WireError if it does not give it."""
    header, start = _header(prefix)
    width = next((one for one in header["widths"] if one["bits"] == bits), None)
    if width is None:
        raise WireError(f"the bundle has no width of {bits} bits", code="E-BUNDLE")
    lengths, step = header["layers"], sum(header["layers"])
    if len(prefix) < start + bits * step:
        raise WireError(f"{len(prefix)} bytes of the bundle are here, {bits} bits take {start + bits * step}",
                        code="E-BUNDLE", remedy="fetch the rest")  # fmt: skip
    if sum(bits * lengths[layer] for _, layer in width["holes"]) > width["size"]:
        raise WireError(f"the holes of the file of {bits} bits are larger than it", code="E-BUNDLE")
    offsets = [sum(lengths[:at]) for at in range(len(lengths))]
    parts, done, skeleton, used = [], 0, width["skeleton"], 0
    for where, layer in width["holes"]:
        parts.append(skeleton[used : used + where - done])
        used, done = used + where - done, where + bits * lengths[layer]
        for plane in range(bits):
            at = start + plane * step + offsets[layer]
            parts.append(prefix[at : at + lengths[layer]])
    file = b"".join([*parts, skeleton[used:]])
    if len(file) != width["size"] or sha256(file).hexdigest() != width["sha256"]:
        raise WireError(f"what was cut for {bits} bits is not the file that was bundled", code="E-BUNDLE")
    return file


def _skeleton(bits: int, file: bytes, layers: Sequence[Sequence[bytes]]) -> _Skeleton:
    holes = []
    for layer, planes in enumerate(layers):
        content = b"".join(planes)
        where = file.find(content)
        if where < 0:
            raise WireError(f"the file of {bits} bits does not hold the planes of layer {layer}", code="E-BUNDLE")
        holes.append((where, layer))
    holes = _apart(sorted(holes), [len(planes[0]) * bits for planes in layers])
    text, done = [], 0
    for where, layer in holes:
        text.append(file[done:where])
        done = where + len(layers[layer][0]) * bits
    whole = b"".join([*text, file[done:]])
    return _Skeleton(bits, len(file), sha256(file).hexdigest(), whole, tuple(holes))


def _apart(holes: Sequence[tuple[int, int]], lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the holes that do not reach into the one before: layers with equal bytes are found at one place."""
    kept: list[tuple[int, int]] = []
    for where, layer in holes:
        if not kept or where >= kept[-1][0] + lengths[kept[-1][1]]:
            kept.append((where, layer))
    return kept


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """Returns the header, every field checked, and where the planes begin."""
    length = int.from_bytes(data[4:_HEAD], "little")
    if data[:4] != _MAGIC or not 0 < length <= min(_MOST_HEADER, len(data) - _HEAD):
        raise WireError("this is not the beginning of a bundle, or not all of its header", code="E-BUNDLE")
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(data[_HEAD : _HEAD + length], _MOST_HEADER)
        header = parse_json(text)
        widths = [_width(one) for one in header["widths"]]
        lengths = [_size(one, _MOST_FILE) for one in header["layers"]]
    except (ValueError, KeyError, TypeError, RecursionError, zlib.error) as exc:
        raise WireError(f"the header of the bundle cannot be read: {type(exc).__name__}", code="E-BUNDLE") from exc
    if any(layer >= len(lengths) for one in widths for _, layer in one["holes"]):
        raise WireError("the header of the bundle names a layer that it does not list", code="E-BUNDLE")
    return {"layers": lengths, "widths": widths}, _HEAD + length


def _width(one: Mapping[str, Any]) -> dict[str, Any]:
    holes = [(_size(where, _MOST_FILE), _size(layer, 1 << 16)) for where, layer in one["holes"]]
    size = _size(one["size"], _MOST_FILE)
    if any(after < before for (before, _), (after, _) in pairwise(holes)):
        raise ValueError("holes are out of order")
    return {
        "bits": _size(one["bits"], 8),
        "size": size,
        "sha256": str(one["sha256"]),
        "holes": holes,
        "skeleton": base64.b85decode(one["skeleton"]),
    }


def _size(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{value!r} is not a size")
    return value
