"""The gate: what a file must pass before it is kept, and what is measured on the way.

E-EXPORT is raised, with the reason in words, unless

- the ONNX checker finds nothing, and the file needs no other file;
- ONNX Runtime loads it, and after optimisation it runs what the plainly stored model runs: no unpacking is left, and in
  the profile int8 every layer whose weight has a form is an integer kernel;
- every output is finite;
- float: outputs are within max(1e-4, 1e-5 * the largest logit) of PyTorch's, and the same class is on top, but for
  inputs whose two best logits lie within 1e-5 (times the largest logit, if that is above 1) of each other;
- int8: outputs equal, to the last bit, those of the twin with the same weights stored as INT8;
- it is no larger than allowed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from export.proof.clocks import Race, race
from export.proof.operators import operators_of, unfolded
from export.refused import ExportError
from export.sessions import answers, open_session
from export.store.layers import weighted_nodes
from wire.params import Array

__all__ = ["TOLERANCE", "GateResult", "check"]

TOLERANCE = 1e-4
_RELATIVE = 1e-5


@dataclass(frozen=True, slots=True)
class GateResult:
    """What was measured of a file that passed. Ratios are over the float model, times in milliseconds.

    `max_difference` and `agreement` (share of inputs with the same class on top, None with one output) are against
    `reference`, `ties` the inputs that were left out of the comparison of classes.
    """

    profile: str
    file_bytes: int
    size_ratio: float
    operators: dict[str, int]
    max_difference: float
    tolerance: float
    agreement: float | None
    ties: int
    load: Race
    latency: Race


def check(
    data: bytes,
    model: onnx.ModelProto,
    inputs: Array,
    reference: Array,
    profile: str,
    *,
    twin: bytes | None = None,
    max_bytes: int | None = None,
    rounds: int = 9,
) -> GateResult:
    """Returns what a file measures; raises ExportError with the reason if it must not be kept.

    `model` is its float graph, `reference` PyTorch's outputs for `inputs` with the very weights the file computes with,
    `twin` the same model with plain INT8 weights, for the profile int8.
    """
    if profile not in ("float", "int8") or (twin is None) != (profile == "float"):
        raise ExportError(f"profile {profile!r}, twin {twin is not None}", remedy="int8 needs a twin, float takes none")
    if max_bytes is not None and len(data) > max_bytes:
        raise ExportError(f"the file has {len(data)} bytes, allowed are {max_bytes}", remedy="use fewer bits")
    _check_form(data)
    plain = model.SerializeToString()
    operators = operators_of(data)
    wrong = unfolded(operators, operators_of(plain if twin is None else twin), profile, len(weighted_nodes(model)))
    if wrong:
        raise ExportError(wrong)
    session = open_session(data)
    found = answers(session, inputs)
    tolerance = max(TOLERANCE, _RELATIVE * float(np.abs(reference).max()))
    ties = _ties(reference)
    _check_answers(found, reference, ties, tolerance if twin is None else None)
    if twin is not None and not np.array_equal(found, answers(open_session(twin), inputs)):
        raise ExportError("outputs differ from those of the twin with plain INT8 weights")
    one, base = inputs[:1], open_session(plain)
    return GateResult(
        profile=profile,
        file_bytes=len(data),
        size_ratio=len(data) / len(plain),
        operators=operators,
        max_difference=float(np.abs(found - reference).max()),
        tolerance=tolerance,
        agreement=float((found.argmax(1) == reference.argmax(1)).mean()) if found.shape[1] > 1 else None,
        ties=int(ties.sum()),
        load=race(lambda: open_session(data), lambda: open_session(plain), min(rounds, 3)),
        latency=race(lambda: answers(session, one), lambda: answers(base, one), rounds, calls=5),
    )


def _check_form(data: bytes) -> None:
    try:
        loaded = onnx.load_model_from_string(data)
        onnx.checker.check_model(loaded, full_check=True)
    except Exception as exc:  # protobuf's own DecodeError, the checker's and shape inference's errors
        raise ExportError(f"the ONNX checker refuses the file: {str(exc)[:300]}") from exc
    outside = [one.name for one in loaded.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        raise ExportError(f"the tensors {outside[:5]} lie in another file", remedy="write one file")


def _ties(reference: Array) -> npt.NDArray[np.bool_]:
    if reference.shape[1] < 2:
        return np.ones(len(reference), np.bool_)
    best = np.partition(reference, -2, axis=1)[:, -2:]
    return np.asarray(best[:, 1] - best[:, 0] <= _RELATIVE * np.maximum(1.0, np.abs(reference).max(1)))


def _check_answers(found: Array, reference: Array, ties: npt.NDArray[np.bool_], tolerance: float | None) -> None:
    if found.shape != reference.shape:
        raise ExportError(f"outputs have the shape {found.shape}, PyTorch's {reference.shape}")
    for what, values in (("the file's", found), ("PyTorch's", reference)):
        if not np.isfinite(values).all():
            raise ExportError(f"{int((~np.isfinite(values)).sum())} of {what} outputs are not finite")
    if tolerance is None:
        return
    worst = float(np.abs(found - reference).max())
    if worst > tolerance:
        raise ExportError(f"outputs differ from PyTorch's by {worst:.3g}, allowed is {tolerance:.3g}")
    other = int((found.argmax(1) != reference.argmax(1))[~ties].sum())
    if other:
        raise ExportError(f"{other} of {len(found)} inputs get another class than from PyTorch")
