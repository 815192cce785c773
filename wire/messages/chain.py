"""The chain: which deltas lead from an old model to a newer one, as a blob of its own, since a plan names only a few.

    bytes  field
    32     digest of the model that the first delta starts from
    then for each delta, 72 bytes: 32 digest of the blob, u64 its size, 32 digest of the model that it leads to

A device fetches it when no model that it holds is the source of a delta in the plan. Every delta starts where the one
before it ends.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from wire.errors import WireError
from wire.messages.plan import MAX_BYTES, BlobRef

__all__ = ["decode_chain", "encode_chain"]

_LINK = struct.Struct("<32sQ32s")
_DIGEST_BYTES = 32


def encode_chain(deltas: Sequence[BlobRef]) -> bytes:
    """Returns the chain of one or more deltas, each of which starts where the one before it ends."""
    links = [_LINK.pack(bytes.fromhex(ref.digest), ref.size, bytes.fromhex(ref.target)) for ref in deltas]
    return b"".join([bytes.fromhex(deltas[0].source), *links])


def decode_chain(data: bytes) -> tuple[BlobRef, ...]:
    """Returns the deltas of a chain."""
    links, rest = divmod(len(data) - _DIGEST_BYTES, _LINK.size)
    if links < 1 or rest:
        raise WireError(f"a chain of {len(data)} bytes, expected {_DIGEST_BYTES} and a multiple of {_LINK.size}")
    source, found = data[:_DIGEST_BYTES].hex(), []
    for blob, size, target in _LINK.iter_unpack(data[_DIGEST_BYTES:]):
        if not 1 <= size <= MAX_BYTES:
            raise WireError(f"a chain names a blob of {size} bytes")
        found.append(BlobRef(blob.hex(), size, source, target.hex()))
        source = target.hex()
    return tuple(found)
