"""Small nets of every architecture, with their float graphs, inputs and ranges; made once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from math import prod

import numpy as np
import pytest

from export.graph import float_graph, weights_of
from export.grids import place
from export.int8 import ranges_of
from export.proof.reference import outputs
from export.variant import computed, twin, write
from models.archs import spec_of
from models.init import initial
from wire.bits import Bits

SHAPES = {
    "mlp-16": (1, 8, 8),
    "cnn-5-9": (3, 9, 11),
    "cnn1d-8": (3, 21),
    "leaf": (1, 4, 4),
    "resnet8-8": (1, 8, 8),
    "mobile-8-16": (1, 8, 8),
}


@dataclass(frozen=True)
class Case:
    """A net and what its files are made of."""

    arch: str
    freeze: tuple[str, ...] = ()

    @cached_property
    def spec(self):
        return spec_of(self.arch, SHAPES[self.arch], 5, 3, self.freeze)

    @cached_property
    def params(self):
        bits = Bits.of("biases", self.arch)
        return {
            name: value if value.ndim > 1 else value + (bits.uniform(value.size) - np.float32(0.5)) * np.float32(0.4)
            for name, value in initial(self.spec).items()
        }

    @cached_property
    def model(self):
        return float_graph(self.spec, self.params)

    @cached_property
    def weights(self):
        return weights_of(self.model)

    @cached_property
    def inputs(self):
        return Bits.of("inputs", self.arch).uniform(16 * prod(self.spec.input)).reshape(16, *self.spec.input)

    @cached_property
    def ranges(self):
        return ranges_of(self.model, self.inputs)

    def forms(self, bits, profile, rule="ls"):
        return {name: place(value, bits, rule, profile) for name, value in self.weights.items()}

    def file(self, forms, profile, **options):
        return write(self.model, forms, profile, self.ranges if profile == "int8" else None, **options)

    def twin(self, forms):
        return twin(self.model, forms, self.ranges)

    def reference(self, forms, profile):
        weights = {name: computed(form, profile) for name, form in forms.items()}
        return outputs(self.spec, self.params, weights, self.inputs)

    def gate(self, forms, profile, **options):
        """Returns the arguments that the gate takes for these forms."""
        return {
            "data": self.file(forms, profile, **options),
            "model": self.model,
            "inputs": self.inputs,
            "reference": self.reference(forms, profile),
            "profile": profile,
            "twin": self.twin(forms) if profile == "int8" else None,
            "rounds": 1,
        }


@cache
def _case(arch, freeze):
    return Case(arch, freeze)


@pytest.fixture
def case():
    """Returns a function from an architecture, and what is frozen, to its Case."""
    return lambda arch, freeze=(): _case(arch, freeze)


@pytest.fixture(params=list(SHAPES))
def every(request):
    """Returns the Case of each architecture in turn."""
    return _case(request.param, ())
