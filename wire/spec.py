"""What a model consists of, by name and shape; nothing here loads NumPy.

A tensor starts as `fill + U(-spread, spread)`, or, with `bell`, as `fill + spread * N` with N close to a normal number;
both are drawn from the stream named (seed, tensor name): see models/init.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

__all__ = ["ModelSpec", "TensorSpec", "canonical_json", "parse_json", "spec_digest"]

_MOST_ELEMENTS = (1 << 32) - 1  # a record counts its elements in 32 bits
_MOST_DIGITS = 4300  # Python's own bound, where it has one
_LARGEST = (2 - 2.0**-23) * 2.0**127


def canonical_json(value: object) -> bytes:
    """Returns the one JSON text of `value`: keys sorted, no blanks, UTF-8, no NaN or Infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_json(text: str | bytes) -> Any:
    """Returns the value of a JSON text; ValueError for anything else, NaN and Infinity included."""
    return json.loads(text, parse_constant=_refuse_constant, parse_int=_whole_number)


def _whole_number(digits: str) -> int:
    # Python before 3.10.7 sets no bound of its own, and takes seconds over a million digits.
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits; at most {_MOST_DIGITS} are read")
    return int(digits)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A float32 tensor of a net and how it starts."""

    name: str
    shape: tuple[int, ...]
    fill: float = 0.0
    spread: float = 0.0
    bell: bool = False

    @property
    def count(self) -> int:
        """Returns the number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A net: its architecture by name, what goes in and comes out, and which tensors travel.

    `trainable` is sent, in this order; `frozen` never is: it is rebuilt from (seed, name).
    """

    arch: str
    input: tuple[int, ...]
    outputs: int
    seed: int
    trainable: tuple[TensorSpec, ...]
    frozen: tuple[TensorSpec, ...] = ()

    @property
    def count(self) -> int:
        """Returns the number of trainable elements."""
        return sum(tensor.count for tensor in self.trainable)

    @property
    def bell(self) -> bool:
        """Tells whether the tensors that are drawn start near normal."""
        return any(tensor.bell for tensor in (*self.trainable, *self.frozen))

    def to_json(self) -> dict[str, Any]:
        """Returns the spec as plain JSON values; a tensor that has no `bell` does not say so."""
        table = asdict(self)
        for part in ("trainable", "frozen"):
            table[part] = [{k: v for k, v in tensor.items() if k != "bell" or v} for tensor in table[part]]
        return table

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ModelSpec:
        """Returns the spec that `to_json` gave; raises KeyError, TypeError or ValueError on anything else."""
        spec = cls(
            arch=str(value["arch"]),
            input=tuple(int(side) for side in value["input"]),
            outputs=int(value["outputs"]),
            seed=int(value["seed"]),
            trainable=tuple(_tensor(item) for item in value["trainable"]),
            frozen=tuple(_tensor(item) for item in value["frozen"]),
        )
        if spec.count > _MOST_ELEMENTS:
            raise ValueError(f"{spec.count} trainable elements, at most {_MOST_ELEMENTS} can travel")
        return spec


def spec_digest(spec: ModelSpec) -> str:
    """Returns the SHA-256 of the spec's canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(spec.to_json())).hexdigest()


def _tensor(value: Mapping[str, Any]) -> TensorSpec:
    shape = tuple(int(side) for side in value["shape"])
    if not shape or any(side < 1 for side in shape):
        raise ValueError(f"tensor {value['name']!r} has shape {shape}; every side must be at least 1")
    if prod(shape) > _MOST_ELEMENTS:
        raise ValueError(f"tensor {value['name']!r} has more than {_MOST_ELEMENTS} elements")
    bell = value.get("bell", False)
    if not isinstance(bell, bool):
        raise ValueError(f"tensor {value['name']!r}: bell = {bell!r} is neither true nor false")
    return TensorSpec(str(value["name"]), shape, _number(value["fill"]), _number(value["spread"]), bell)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        raise ValueError(f"{str(value)[:60]!r} is not a float32 number")
    return float(value)
