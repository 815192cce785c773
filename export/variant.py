"""One ONNX file of a model: its float graph with each weight in the form it is stored in.

    float   the runtime folds every form to float32 and computes as the float model does
    int8    the runtime folds every form to INT8, and computes with integers whatever the stored width

The file needs opset 18 and IR version 8, so ONNX Runtime 1.16; with the packing `native` what its element types need.
Equal arguments give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata as packages

import onnx

from export.forms import Form, Integer, Rescaled, Table
from export.grids import PROFILES
from export.int8 import Activations, add_integer_graph
from export.refused import ExportError
from export.store.elements import PACKINGS, Carrier, carrier_of
from export.store.layers import left_of, weights_of
from export.store.sheet import Sheet
from export.store.weights import add_float, add_int8, add_int8_twin
from wire.params import Array, params_digest
from wire.spec import canonical_json

__all__ = ["computed", "twin", "widths", "write"]

_FLOAT_BITS = 32


def write(
    model: onnx.ModelProto,
    forms: Mapping[str, Form],
    profile: str,
    activations: Activations | None = None,
    metadata: Mapping[str, object] | None = None,
    *,
    packing: str = "planes",
) -> bytes:
    """Returns the file of the float graph `model` with a form for each weight that `weights_of` names.

    `metadata` adds to what the file says of itself; values that are not text become canonical JSON.
    """
    if packing not in PACKINGS:
        raise ExportError(f"packing {packing!r}", remedy=f"choose of {PACKINGS}")
    sheet, weights = Sheet(packing=packing), _checked(model, forms, profile, activations)
    for name in weights:
        (add_float if profile == "float" else add_int8)(sheet, name, forms[name])
    return _finished(sheet, model, forms, activations, metadata)


def twin(
    model: onnx.ModelProto,
    forms: Mapping[str, Form],
    activations: Activations,
    metadata: Mapping[str, object] | None = None,
) -> bytes:
    """Returns the file of profile int8 with the same weights as plain INT8 initialisers."""
    sheet = Sheet()
    for name in _checked(model, forms, "int8", activations):
        add_int8_twin(sheet, name, forms[name])
    return _finished(sheet, model, forms, activations, metadata)


def computed(form: Form, profile: str) -> Array:
    """Returns the weights that a file of this profile computes with."""
    return (form.rounded() if profile == "int8" and isinstance(form, Table) else form).values()


def widths(model: onnx.ModelProto, forms: Mapping[str, Form]) -> dict[str, int]:
    """Returns the bits of each tensor that is no vector: those of its form, or 32 where no form reaches it."""
    return {name: form.bits for name, form in forms.items()} | dict.fromkeys(left_of(model), _FLOAT_BITS)


def _finished(
    sheet: Sheet,
    model: onnx.ModelProto,
    forms: Mapping[str, Form],
    activations: Activations | None,
    metadata: Mapping[str, object] | None,
) -> bytes:
    names = list(weights_of(model))
    if activations is None:
        sheet.nodes += model.graph.node
    else:
        add_integer_graph(sheet, model, activations, {name: _scale(forms[name]) for name in names})
    told = {key: _text(value) for key, value in (metadata or {}).items()}
    carrier = carrier_of(sheet.tensors.values())
    ordered = {name: forms[name] for name in names}
    told |= _facts(ordered, widths(model, ordered), activations, carrier)
    return _serialised(model, sheet, carrier, told | {"input": _text([one.dim_value for one in _sides(model)])})


def _checked(
    model: onnx.ModelProto, forms: Mapping[str, Form], profile: str, activations: Activations | None
) -> dict[str, Array]:
    """Returns the weights to be written; raises ExportError unless all arguments fit them."""
    if profile not in PROFILES:
        raise ExportError(f"profile {profile!r}", remedy=f"choose of {PROFILES}")
    if (activations is None) != (profile == "float"):
        raise ExportError(
            f"profile {profile!r} {'without' if activations is None else 'with'} ranges of activations",
            remedy="give export.int8.ranges_of(model, inputs) to the profile int8, and to no other",
        )
    weights = weights_of(model)
    odd = sorted(set(weights) ^ set(forms))
    odd = odd or [name for name in weights if forms[name].values().shape != weights[name].shape]
    if odd:
        raise ExportError(f"forms for {odd[:5]} are missing, too many or of another shape", remedy="see weights_of")
    return weights


def _scale(form: Form) -> Array:
    if isinstance(form, Integer | Rescaled | Table):
        return form.channel_scale
    raise ExportError(f"a weight of the form {type(form).__name__}", remedy="profile int8 takes whole numbers")


def _facts(
    forms: Mapping[str, Form], bits: Mapping[str, int], activations: Activations | None, carrier: Carrier
) -> dict[str, str]:
    """Returns what the file says of itself; the digest names the values it computes with."""
    profile = "float" if activations is None else "int8"
    same = len(set(bits.values())) == 1
    facts = {
        "bits": str(next(iter(bits.values()))) if same else _text(bits),
        "ir": str(carrier.ir),
        "min_runtime": carrier.min_runtime,
        "opset": str(carrier.opset),
        "profile": profile,
        "scheme": "+".join(sorted({type(form).__name__.lower() for form in forms.values()})),
        "weights_sha256": params_digest({name: computed(form, profile) for name, form in forms.items()}),
    }
    if activations is not None:
        facts["calibration"] = _text({"examples": activations.examples, "range": activations.rule})
    with suppress(packages.PackageNotFoundError):  # a bare checkout: what is not known is not stated
        facts["toolkit"] = packages.version("bitfleet")
    return facts


def _sides(model: onnx.ModelProto) -> list[onnx.TensorShapeProto.Dimension]:
    return list(model.graph.input[0].type.tensor_type.shape.dim)[1:]


def _serialised(model: onnx.ModelProto, sheet: Sheet, carrier: Carrier, facts: Mapping[str, str]) -> bytes:
    read = {name for node in sheet.nodes for name in node.input}
    floats = [one for one in model.graph.initializer if one.name in read and one.name not in sheet.tensors]
    made = {output for node in sheet.nodes for output in node.output}
    graph = onnx.helper.make_graph(
        sheet.nodes,
        "bitfleet",
        list(model.graph.input),
        list(model.graph.output),
        [*sheet.tensors.values(), *(one for one in floats if one.name not in made)],
    )
    opsets = [onnx.helper.make_opsetid("", carrier.opset)]
    file = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=carrier.ir, producer_name="bitfleet")
    onnx.helper.set_model_props(file, dict(sorted(facts.items())))
    return bytes(file.SerializeToString(deterministic=True))


def _text(value: object) -> str:
    return value if isinstance(value, str) else canonical_json(value).decode()
