"""Stages in a row. A chain is written in a plan as a list of settings, and ends in bytes.

[{"stage": "topk", "share": 0.01}, {"stage": "levels", "levels": 7}]     packing is added at the end by itself

One array becomes:  u32 elements | for each stage: u32 side bytes, side | u32 body bytes | body
Every length but that of the positions follows from the plan, and is checked before anything is read.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wire.bits import Bits
from wire.errors import ConfigError, WireError
from wire.params import Array
from wire.stages.levels import Levels
from wire.stages.pack import Pack
from wire.stages.signs import Signs
from wire.stages.stage import Local, Shape, Stage, Vector
from wire.stages.topk import TopK

__all__ = ["STAGES", "Chain"]

STAGES: dict[str, Callable[..., Stage]] = {"topk": TopK, "levels": Levels, "signs": Signs}

_U32 = struct.Struct("<I")
_SIDE_BYTES = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Chain:
    """The stages of one direction, packing not counted."""

    stages: tuple[Stage, ...]

    @classmethod
    def of(cls, settings: Sequence[Mapping[str, Any]]) -> Chain:
        """Returns the chain that a plan's settings name; raises ConfigError naming the stage or the setting."""
        chain = cls(tuple(_stage(item) for item in settings))
        chain.shapes(1)
        return chain

    def shapes(self, count: int) -> list[Shape]:
        """Returns the shape before each stage, before packing, and of the bytes."""
        shapes = [Shape(count)]
        for stage in self.stages:
            if shapes[-1].symbols:
                what = f"stage {type(stage).__name__.lower()} after levels or signs"
                raise ConfigError(what, remedy="put levels or signs last, and only one of them")
            shapes.append(stage.shape(shapes[-1]))
        return [*shapes, Pack().shape(shapes[-1])]

    def most_bytes(self, count: int) -> int:
        """Returns a limit on the record of `count` elements: positions never take more than a mask."""
        shapes = self.shapes(count)
        return 4 * (len(shapes) + 1) + shapes[-1].size + sum(_SIDE_BYTES + taken.size // 8 for taken in shapes[:-2])

    def encode(self, values: Array, local: Local, bits: Bits) -> bytes:
        """Returns the record of one flat array."""
        record, flow = [_U32.pack(len(values))], values
        for stage in self._with_pack(len(values)):
            flow, side = stage.encode(flow, local, bits)
            record += [_U32.pack(len(side)), side]
        return b"".join([*record, _U32.pack(len(flow)), flow.tobytes()])

    def decode(self, record: memoryview, count: int) -> tuple[Array, memoryview]:
        """Returns the array of `count` elements at the start of `record`, and the bytes after it."""
        found, rest = _take_u32(record)
        if found != count:
            raise WireError(f"{found} elements, the plan says {count}", code="E-SHAPE")
        stages, shapes = self._with_pack(count), self.shapes(count)
        sides: list[memoryview] = []
        for _ in stages:
            size, rest = _take_u32(rest)
            side, rest = _take(rest, size)
            sides.append(side)
        size, rest = _take_u32(rest)
        if size != shapes[-1].size:
            raise WireError(f"body of {size} bytes, the plan says {shapes[-1].size}", code="E-SHAPE")
        body, rest = _take(rest, size)
        flow: Vector = np.frombuffer(body, np.uint8)
        for stage, side, taken in reversed(list(zip(stages, sides, shapes, strict=False))):
            flow = stage.decode(flow, side, taken)
        return flow, rest

    def _with_pack(self, count: int) -> tuple[Stage, ...]:
        return (*self.stages, Pack(self.shapes(count)[-2].symbols))


def _stage(setting: Mapping[str, Any]) -> Stage:
    name, options = setting.get("stage"), {k: v for k, v in setting.items() if k != "stage"}
    if not isinstance(name, str) or name not in STAGES:
        raise ConfigError(f"stage {str(name)[:60]!r}", remedy=f"choose from {', '.join(sorted(STAGES))}")
    try:
        return STAGES[name](**options)
    except TypeError as exc:
        raise ConfigError(f"stage {name!r} with {sorted(options)}: {exc}") from exc


def _take_u32(data: memoryview) -> tuple[int, memoryview]:
    head, rest = _take(data, _U32.size)
    return int(_U32.unpack(head)[0]), rest


def _take(data: memoryview, size: int) -> tuple[memoryview, memoryview]:
    if size > len(data):
        raise WireError(f"{size} bytes wanted, {len(data)} left", code="E-SHAPE")
    return data[:size], data[size:]
