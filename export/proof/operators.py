"""What ONNX Runtime really runs: the operators of a model after it was optimised for this machine."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import onnx

from export.sessions import open_session

__all__ = ["operators_of", "unfolded"]

_FLOAT_KERNELS = ("Conv", "FusedConv", "Gemm", "FusedGemm")
_INTEGER_KERNELS = ("QLinearConv", "QGemm")
_UNPACKING = ("BitShift", "BitwiseAnd", "MatMulInteger", "Gather", "Slice", "Cast")


def operators_of(data: bytes) -> dict[str, int]:
    """Returns how often each operator is in the optimised graph, by name in order."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        open_session(data, optimised_path=path)
        nodes = onnx.load_model(str(path)).graph.node
    return dict(sorted(Counter(node.op_type for node in nodes).items()))


def unfolded(found: dict[str, int], plain: dict[str, int], profile: str, kernels: int) -> str:
    """Returns what is wrong with the operators `found`, in words; empty if nothing is.

    `plain` are those of the same model with its weights stored plainly, `kernels` how many layers have forms.
    """
    more = {name: count for name, count in found.items() if count > plain.get(name, 0)}
    if more:
        unpacking = [name for name in more if name in _UNPACKING or name == "DequantizeLinear"]
        why = "weights are unpacked at every call" if unpacking else "it does not run as the plain model does"
        return f"after optimisation {why}: {more} more than in the plain model"
    wanted = _INTEGER_KERNELS if profile == "int8" else _FLOAT_KERNELS
    have = sum(found.get(name, 0) for name in wanted)
    if have < kernels:  # the runtime may make more of what is none
        return f"{have} of {kernels} layers are {' or '.join(wanted)} after optimisation: {found}"
    return ""
