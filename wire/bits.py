"""Portable seeded bits: raw Philox4x64-10 words, turned into float32 uniforms by a fixed rule.

NumPy promises the raw words of a bit generator to stay as they are, and makes no such promise for the floats of a
Generator. So only words are drawn, and everything else (uniforms, permutations) is derived here by integer rules that
another language can repeat: a 64-bit word gives two 32-bit halves, low half first; a half gives (half >> 8) / 2^24.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = ["Bits", "key_of"]

_STEP = np.float32(2.0**-24)


def key_of(*parts: object) -> int:
    """Returns the key named by `parts`: first 16 bytes, little-endian, of the SHA-256 of their texts joined by 0x1F."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")


@dataclass
class Bits:
    """One stream of random words. Two streams of one key give the same words."""

    key: int
    _source: np.random.Philox = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._source = np.random.Philox(key=self.key)

    @classmethod
    def of(cls, *parts: object) -> Bits:
        """Returns the stream named by `parts`."""
        return cls(key_of(*parts))

    def words(self, count: int) -> npt.NDArray[np.uint64]:
        """Returns the next `count` raw words."""
        return np.asarray(self._source.random_raw(count), dtype=np.uint64)

    def uniform(self, count: int) -> npt.NDArray[np.float32]:
        """Returns `count` float32 values in [0, 1) on the grid of 2^-24; an odd count throws half a word away."""
        halves = self.words((count + 1) // 2).astype("<u8", copy=False).view("<u4")[:count]
        halves >>= np.uint32(8)
        values = halves.astype(np.float32)
        values *= _STEP
        return values

    def permutation(self, count: int) -> npt.NDArray[np.int64]:
        """Returns the order that sorts the next `count` words."""
        return np.argsort(self.words(count), kind="stable")
