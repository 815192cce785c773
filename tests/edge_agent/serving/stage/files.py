"""Small ONNX files, right and wrong in many ways, and manifests that offer them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from wire.messages.blob import digest_bytes
from wire.messages.golden import encode_golden
from wire.messages.manifest import Manifest, Measured, Variant, encode_manifest, key_id
from wire.messages.rollout import Offer
from wire.sign import make_key, public_key, signer

INPUT, OUTPUTS = (1, 4, 4), 3
OPERATORS = ("Flatten", "Gemm", "Relu")
LABELS = ("low", "middle", "high")
NOW_S = 1_800_000_000
INPUTS = np.random.default_rng(1).normal(size=(8, *INPUT)).astype(np.float32)


def model(seed=1, width=6, repeat=1) -> onnx.ModelProto:
    """Returns a net of two layers; `repeat` does the Relu so many times, which takes time and changes nothing."""
    draw = np.random.default_rng(seed)
    first = draw.normal(size=(width, 16)).astype(np.float32)
    second = draw.normal(size=(OUTPUTS, width)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w1"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r0"]),
        *(helper.make_node("Relu", [f"r{at}"], [f"r{at + 1}"]) for at in range(repeat - 1)),
        helper.make_node("Gemm", [f"r{repeat - 1}", "w2", "b2"], ["output"], transB=1),
    ]
    stored = [
        numpy_helper.from_array(first, "w1"),
        numpy_helper.from_array(second, "w2"),
        helper.make_tensor("b2", TensorProto.FLOAT, [OUTPUTS], [0.0, 0.5, -0.5]),
    ]
    ends = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *INPUT]),
        helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", OUTPUTS]),
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made.ir_version = 8
    helper.set_model_props(made, {"bits": "32"})
    return made


def file_bytes(seed=1, **words) -> bytes:
    return model(seed, **words).SerializeToString()


def outputs_of(data: bytes, inputs=INPUTS) -> np.ndarray:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {"input": inputs})[0]


def with_external_data() -> bytes:
    made = model()
    tensor = made.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    return made.SerializeToString()


def with_nan() -> bytes:
    """Returns a file whose answers are not numbers, though every weight is one: 0 / 0."""
    made = model()
    made.graph.node[-1].output[0] = "right"
    made.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    made.graph.node.append(helper.make_node("Mul", ["right", "zero"], ["nothing"]))
    made.graph.node.append(helper.make_node("Div", ["nothing", "zero"], ["output"]))
    return made.SerializeToString()


@dataclass
class Publisher:
    """A coordinator's half: a key, blobs by digest, and manifests over them."""

    folder: Path
    blobs: dict[str, bytes] = field(default_factory=dict)
    name: str = "models.key"

    def __post_init__(self):
        self.key = self.folder / self.name
        if not self.key.exists():
            make_key(self.key)
        self.public = public_key(self.key)

    def keep(self, data: bytes) -> str:
        digest = digest_bytes(data)
        self.blobs[digest] = data
        return digest

    def variant(self, name: str, data: bytes, **changes) -> Variant:
        made = Variant(
            name=name,
            profile=name.split("-", maxsplit=1)[0],
            bits=float(name.split("-")[1]),
            digest=self.keep(data),
            size=len(data),
            operators=(*OPERATORS, "Mul", "Div"),
            min_runtime="1.16",
            tolerance=1e-3,
            measured=Measured("here", accuracy=0.9, examples=100),
        )
        return replace(made, **changes)

    def manifest(self, version: int, files: dict[str, bytes], *, answers=None, edit=None, **changes) -> Manifest:
        """Returns a manifest over files by variant; `answers` are the golden ones, else what the files answer."""
        variants = tuple(self.variant(name, data) for name, data in files.items())
        answers = answers or {name: outputs_of(data) for name, data in files.items()}
        golden = encode_golden(INPUTS, answers)
        made = Manifest(
            fleet="test",
            model="net",
            version=version,
            content="0" * 64,
            created_s=NOW_S - 3600,
            expires_s=NOW_S + 3600,
            key=key_id(self.public),
            input=INPUT,
            outputs=OUTPUTS,
            labels=LABELS,
            preprocessing="",
            lineage={},
            golden=self.keep(golden),
            golden_bytes=len(golden),
            variants=tuple(edit(one) for one in variants) if edit else variants,
        )
        return replace(made, **changes)

    def signed(self, manifest: Manifest, key: Path | None = None) -> bytes:
        return encode_manifest(manifest, signer(key or self.key))

    def offer(self, manifest: Manifest, data: bytes | None = None) -> Offer:
        data = data or self.signed(manifest)
        return Offer("roll-1", self.keep(data), len(data), manifest.version, "dev-1")
