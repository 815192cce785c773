"""A training step of the CNNs as they are built, over the same layers in torch's usual order of memory.

One thread, batches of 32 pictures of 28 x 28, both ways in turn, medians.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from benchmarks.result import Figure, Result

if TYPE_CHECKING:
    from torch import nn

__all__ = ["run"]

_NETS = ("cnn-8-32-64-64", "cnn-32-64", "leaf")
_SHAPE, _OUTPUTS, _BATCH = (1, 28, 28), 10, 32


def run(options: Sequence[str]) -> Result:
    """Times a step of every net both ways, `--times` times over."""
    import torch

    parser = argparse.ArgumentParser(prog="scripts/bench order")
    parser.add_argument("--times", type=int, default=40)
    asked = parser.parse_args(options)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ratios: dict[str, Figure] = {}
        for arch in _NETS:
            ours_ms, usual_ms = _both(arch, asked.times)
            ratios |= {f"{arch}_ms": ours_ms, f"{arch}_usual_ms": usual_ms, f"{arch}_over_usual": ours_ms / usual_ms}
    finally:
        torch.set_num_threads(before)
    return Result({"batch": _BATCH, "times": asked.times, **ratios})


def _both(arch: str, times: int) -> tuple[float, float]:
    """Returns the medians of a step in milliseconds: of the net, and of its layers one after the other."""
    from torch import nn

    from models.archs import spec_of
    from models.init import initial
    from models.nets import build, load

    spec = spec_of(arch, _SHAPE, _OUTPUTS, 1)
    net = build(spec)
    load(net, initial(spec))
    usual = nn.Sequential(OrderedDict(net.named_children()))
    steps = _step(net), _step(usual)
    taken = [tuple(_timed_ms(step) for step in steps) for _ in range(times + 3)][3:]  # the first warm up
    return median(ours for ours, _ in taken), median(other for _, other in taken)


def _step(net: nn.Module) -> Callable[[], object]:
    import torch

    generator = torch.Generator().manual_seed(1)
    x = torch.rand(_BATCH, *_SHAPE, generator=generator)
    y = torch.randint(_OUTPUTS, (_BATCH,), generator=generator)
    weights = list(net.parameters())
    return lambda: torch.autograd.grad(torch.nn.functional.cross_entropy(net(x), y), weights)


def _timed_ms(step: Callable[[], object]) -> float:
    started = perf_counter()
    step()
    return (perf_counter() - started) * 1e3
