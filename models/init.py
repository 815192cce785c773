"""The first values of every tensor, the same on every machine.

Tensor `t` of a spec with seed `s` reads the stream Bits.of(s, t.name), in C order, one uniform u in [0, 1) an element:

    value = (2u - 1) * spread + fill

in float32. 2u - 1 is exact; the product and the sum are each rounded once, `spread` and `fill` to float32 before that.
A spread of 0 draws nothing. With `bell` the stream gives twelve uniforms an element, the first of every element first:

    value = (u_1 + u_2 + ... + u_12 - 6) * spread + fill

added from the left, in float32: a sum of twelve has variance 1 and a kurtosis of 2.9, near enough to a normal number,
and needs no logarithm that two platforms could round differently.
"""

from __future__ import annotations

import numpy as np

from wire.bits import Bits
from wire.params import Array, Params
from wire.spec import ModelSpec, TensorSpec

__all__ = ["first_values", "frozen", "initial"]

_SUMMED = 12  # of variance 1/12 each


def initial(spec: ModelSpec) -> Params:
    """Returns the trainable tensors as they start."""
    return {tensor.name: first_values(spec.seed, tensor) for tensor in spec.trainable}


def frozen(spec: ModelSpec) -> Params:
    """Returns the tensors that never travel."""
    return {tensor.name: first_values(spec.seed, tensor) for tensor in spec.frozen}


def first_values(seed: int, tensor: TensorSpec) -> Array:
    """Returns one tensor as it starts."""
    if tensor.spread == 0.0:
        return np.full(tensor.shape, tensor.fill, dtype=np.float32)
    bits = Bits.of(seed, tensor.name)
    values = _bell(bits, tensor.count) if tensor.bell else _even(bits, tensor.count)
    values *= np.float32(tensor.spread)
    values += np.float32(tensor.fill)
    return values.reshape(tensor.shape)


def _even(bits: Bits, count: int) -> Array:
    values = bits.uniform(count)
    values *= np.float32(2.0)
    values -= np.float32(1.0)
    return values


def _bell(bits: Bits, count: int) -> Array:
    values = bits.uniform(count)
    for _ in range(_SUMMED - 1):
        values += bits.uniform(count)
    values -= np.float32(_SUMMED / 2)
    return values
