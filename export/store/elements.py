"""Codes of 4 and 2 bits as elements of ONNX's own types UINT4 and UINT2, and what a file with such types needs.

Two or four codes lie in a byte, the first in its lowest bits; codes past the last one are 0. A file states the least
opset and IR version that know its types, and the oldest ONNX Runtime that was seen to fold a Cast from them away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx

from export.store.layers import IR_VERSION, OPSET
from export.store.planes import Codes, check_codes

__all__ = ["NATIVE_BITS", "PACKINGS", "Carrier", "as_elements", "carrier_of"]

PACKINGS = ("planes", "native")
"""How codes of fewer than 8 bits lie in a file: in bit planes, or in ONNX's own type where there is one."""
NATIVE_BITS = (4, 2)

_UINT4, _UINT2 = 21, 25  # TensorProto's numbers: onnx knows the second by name since 1.20
_TYPES = {4: _UINT4, 2: _UINT2}


@dataclass(frozen=True, slots=True)
class Carrier:
    """The opset and IR version that a file states, and the oldest ONNX Runtime that runs it."""

    opset: int
    ir: int
    min_runtime: str


_PLAIN = Carrier(OPSET, IR_VERSION, "1.16")
_CARRIERS = {_UINT4: Carrier(21, 10, "1.23"), _UINT2: Carrier(25, 13, "1.25")}


def as_elements(name: str, codes: Codes, bits: int) -> onnx.TensorProto:
    """Returns the initialiser of these codes, in the shape that they have."""
    check_codes(codes, bits)
    each = 8 // bits
    flat = np.zeros(-(-codes.size // each) * each, np.uint8)
    flat[: codes.size] = codes.reshape(-1)
    shifted = flat.reshape(-1, each) << np.arange(0, 8, bits, dtype=np.uint8)
    raw = np.bitwise_or.reduce(shifted, axis=1).tobytes()
    return onnx.TensorProto(name=name, data_type=_TYPES[bits], dims=codes.shape, raw_data=raw)


def carrier_of(tensors: Iterable[onnx.TensorProto]) -> Carrier:
    """Returns what a file with these initialisers needs."""
    return max((_CARRIERS.get(one.data_type, _PLAIN) for one in tensors), key=lambda one: one.opset, default=_PLAIN)
