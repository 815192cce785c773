"""Named float32 tensors and what is done to them: digest, delta, add, flatten."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from wire.errors import WireError
from wire.spec import TensorSpec, canonical_json

__all__ = ["Array", "Params", "add", "check_shapes", "clipped", "delta", "flatten", "params_digest", "split"]

Array = npt.NDArray[np.float32]
Params = dict[str, Array]


def params_digest(params: Mapping[str, Array]) -> str:
    """Returns the SHA-256 that names these values.

    Over the tensors in order of name: canonical JSON [name, shape], a line feed, the little-endian float32 values.
    """
    whole = hashlib.sha256()
    for name in sorted(params):
        tensor = params[name]
        whole.update(canonical_json([name, list(tensor.shape)]) + b"\n")
        whole.update(np.ascontiguousarray(tensor, dtype="<f4").data)
    return whole.hexdigest()


def delta(after: Mapping[str, Array], before: Mapping[str, Array]) -> Params:
    """Returns after - before, tensor by tensor."""
    return {name: after[name] - before[name] for name in before}


def add(base: Mapping[str, Array], change: Mapping[str, Array]) -> Params:
    """Returns base + change, tensor by tensor."""
    return {name: base[name] + change[name] for name in base}


def clipped(params: Mapping[str, Array], most: float) -> Params:
    """Returns params * min(1, most / length), length = the Euclidean norm over all tensors together, in float64."""
    squares = (np.square(values, dtype=np.float64).sum() for values in params.values())
    length = float(np.sqrt(sum(squares, start=np.float64(0))))
    if length <= most:
        return dict(params)
    return {name: (values * (most / length)).astype(np.float32) for name, values in params.items()}


def flatten(params: Mapping[str, Array], order: Iterable[TensorSpec]) -> Array:
    """Returns all values as one vector, in the given order."""
    parts = [params[tensor.name].reshape(-1) for tensor in order]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def split(vector: Array, order: Iterable[TensorSpec]) -> Params:
    """Returns the tensors that `flatten` joined; they look into the vector."""
    params: Params = {}
    at = 0
    for tensor in order:
        params[tensor.name] = vector[at : at + tensor.count].reshape(tensor.shape)
        at += tensor.count
    return params


def check_shapes(params: Mapping[str, Array], order: Iterable[TensorSpec]) -> None:
    """Raises WireError unless `params` has exactly these tensors, as float32 of these shapes."""
    wanted = {tensor.name: tensor.shape for tensor in order}
    if set(wanted) != set(params):
        odd = sorted(set(wanted) ^ set(params))
        raise WireError(f"tensors {odd[:5]} are missing or too many", code="E-TENSORS")
    for name, shape in wanted.items():
        found = params[name]
        if found.shape != shape or found.dtype != np.float32:
            raise WireError(f"tensor {name!r} is {found.dtype}{found.shape}, expected float32{shape}", code="E-SHAPE")
