"""A small net as nested files, and the bundle that each of them can be cut from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import onnx

from edge_agent.config import ModelConfig
from edge_agent.serving.slots import read_pointer, read_slot
from export.graph import float_graph, weights_of
from export.ladder.nested import bundled, nested_forms
from export.variant import write
from models.archs import spec_of
from models.init import initial
from tests.edge_agent.serving.stage.files import INPUT, OUTPUTS, Publisher
from wire.messages.blob import digest_bytes
from wire.messages.manifest import Measured

WIDTHS = (8, 6, 4)
ACCURACY = {8: 0.95, 6: 0.93, 4: 0.9}


@dataclass(frozen=True)
class Nested:
    """Files by width, their bundle, and how many of its bytes each width needs."""

    files: dict[int, bytes]
    bundle: bytes
    need: dict[int, int]

    @property
    def digest(self) -> str:
        return digest_bytes(self.bundle)

    def manifest(self, publisher: Publisher, version: int, *, plain=(), bundle=None, longer=0, **changes):
        """Returns a manifest over all widths; those in `plain` do not name the bundle. `longer` spoils the prefixes."""
        name = publisher.keep(self.bundle if bundle is None else bundle)

        def edit(one):
            operators = {node.op_type for node in onnx.load_model_from_string(publisher.blobs[one.digest]).graph.node}
            bits = int(one.bits)
            one = replace(one, operators=tuple(operators), measured=Measured("lab", accuracy=ACCURACY[bits]))
            return one if bits in plain else replace(one, bundle=name, prefix=self.need[bits] + longer)

        return publisher.manifest(version, {f"float-{b}": f for b, f in self.files.items()}, edit=edit, **changes)


def policy(bits) -> ModelConfig:
    """Returns the policy of a board for which the file of so many bits is the largest."""
    return ModelConfig(health_s=0.0, max_bytes=len(nested().files[bits]))


def part(side, bundle=None):
    return side.models / "store" / f"{bundle or nested().digest}.part"


def serving(side) -> bytes:
    """Returns the file that serves."""
    slot = read_slot(side.models, read_pointer(side.models).serving)
    return slot.path.read_bytes()


def spans(side, digest):
    """Returns what was asked for of a blob, question by question."""
    return [spans for asked, spans in side.questions if asked == digest]


@cache
def nested(arch="mlp-256-256", seed=3) -> Nested:
    spec = spec_of(arch, INPUT, OUTPUTS, seed)
    params = initial(spec)
    model = float_graph(spec, params)
    weights = weights_of(model)
    files = {bits: write(model, nested_forms(weights, bits, "float"), "float", None) for bits in WIDTHS}
    return Nested(files, *bundled(weights, files, "float"))
