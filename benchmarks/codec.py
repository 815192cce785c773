"""Encoding and decoding 1 M float32 at 4 bits, against a bare NumPy stochastic-rounding pass run in between."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.result import Result, at_most
from wire.bits import Bits
from wire.frame import Kind, decode_frame
from wire.messages.plan import RoundPlan
from wire.messages.train import TrainSettings
from wire.messages.update import Update, UpdateHeader, decode_update, encode_update
from wire.params import Array
from wire.spec import ModelSpec, TensorSpec

__all__ = ["run"]

LEVELS = 7  # 15 symbols, 4 bits each


def run(options: Sequence[str]) -> Result:
    """Times the three passes in turn, `--times` times over, and compares the medians of the ratios."""
    parser = argparse.ArgumentParser(prog="scripts/bench codec")
    parser.add_argument("--elements", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=31)
    asked = parser.parse_args(options)
    values = (Bits.of("codec", "values").uniform(asked.elements) - np.float32(0.5)) * np.float32(0.02)
    rounds = [_one_round(values, at) for at in range(asked.times + 2)][2:]  # the first two warm up
    return _result(values, rounds)


def encode(values: Array, plan: RoundPlan) -> bytes:
    """Returns the bytes under test: a whole update as it travels, frame and checksum included."""
    header = UpdateHeader(plan.run, plan.round, "device", plan.base, plan.kind, examples=1)
    return encode_update(Update(header, {"values": values}), plan, _spec(len(values)))


def decode(data: bytes, plan: RoundPlan, count: int) -> Array:
    """Returns the values in it, with every check that the wire makes."""
    return decode_update(decode_frame(data, Kind.UPDATE), plan, _spec(count))["values"]


def bare_pass(values: Array, random: np.random.Generator) -> Array:
    """Returns the yardstick: draw, scale, add, floor, in place; no checks, no packing, nothing portable."""
    steps: Array = values * np.float32(LEVELS / 0.01)
    steps += random.random(len(values), dtype=np.float32)
    np.floor(steps, out=steps)
    return steps


def _spec(count: int) -> ModelSpec:
    return ModelSpec("none", (1,), 1, 0, (TensorSpec("values", (count,)),))


def _plan(number: int) -> RoundPlan:
    digest = "0" * 64
    stages = ({"stage": "levels", "levels": LEVELS},)
    return RoundPlan("codec", number, 0, digest, digest, digest, 1, (), TrainSettings("none"), 1.0, stages=stages)


def _one_round(values: Array, at: int) -> tuple[float, float, float]:
    plan, random = _plan(at), np.random.default_rng(at)
    bare_s, _ = _timed(lambda: bare_pass(values, random))
    encode_s, data = _timed(lambda: encode(values, plan))
    decode_s, back = _timed(lambda: decode(data, plan, len(values)))
    worst = float(np.abs(back - values).max())
    if not worst <= 0.01 / LEVELS * 1.001:
        raise RuntimeError(f"a value came back off by {worst}, more than one level: these timings would mean nothing")
    return bare_s, encode_s, decode_s


def _timed(step: Callable[[], Any]) -> tuple[float, Any]:
    start = perf_counter()
    value = step()
    return perf_counter() - start, value


def _result(values: Array, rounds: Sequence[tuple[float, float, float]]) -> Result:
    encoding = median(encode_s / bare_s for bare_s, encode_s, _ in rounds)
    decoding = median(decode_s / bare_s for bare_s, _, decode_s in rounds)
    bare, encoded, decoded = (median(column) * 1e3 for column in zip(*rounds, strict=True))
    figures = {
        "elements": len(values),
        "bare_ms": bare,
        "encode_ms": encoded,
        "decode_ms": decoded,
        "encoded_bytes": len(encode(values, _plan(0))),
    }
    limits = (at_most("encode_over_bare", 3, encoding), at_most("decode_over_bare", 3, decoding))
    return Result(figures | {"encode_over_bare": encoding, "decode_over_bare": decoding}, limits)
