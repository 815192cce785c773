"""First values: golden, the same in another process, and within their limits."""

import subprocess
import sys

import numpy as np

from models.archs import spec_of
from models.init import first_values, frozen, initial
from wire.bits import Bits
from wire.params import params_digest
from wire.spec import ModelSpec, TensorSpec

GOLDEN = ["0x1.3dd0640000000p-1", "0x1.d8e6e40000000p-2", "0x1.291c880000000p-2", "0x1.2cbcfc0000000p-2"]
CODE = (
    "from models.archs import spec_of; from models.init import initial; from wire.params import params_digest;"
    "print(params_digest(initial(spec_of('cnn', (1, 8, 8), 10, 42))))"
)


def test_golden_values():
    hexes = [
        value.hex() for value in map(float, first_values(42, TensorSpec("out.weight", (2, 2), 0.5, 0.25)).reshape(-1))
    ]
    assert hexes == GOLDEN


def test_the_formula_in_whole_numbers():
    """(2u - 1) is (2k - 2^24) / 2^24 for the 24-bit k that the stream gives, and is exact in float32."""
    from wire.bits import Bits

    words = Bits.of(9, "t").words(2)
    halves = [int(word) >> shift & 0xFFFFFFFF for word in words for shift in (0, 32)]
    exact = [np.float32((2 * (half >> 8) - 2**24) / 2**24) for half in halves[:3]]
    spread = np.float32(1 / 3)
    wanted = [np.float32(value * spread) + np.float32(1.0) for value in exact]
    assert first_values(9, TensorSpec("t", (3,), 1.0, 1 / 3)).tolist() == [float(value) for value in wanted]


def test_same_in_another_process():
    here = params_digest(initial(spec_of("cnn", (1, 8, 8), 10, 42)))
    there = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.strip()
    assert here == there
    assert here != params_digest(initial(spec_of("cnn", (1, 8, 8), 10, 43)))


def test_a_tensor_depends_on_seed_and_name_alone():
    whole = initial(spec_of("mlp", (1, 8, 8), 10, 1))
    part = spec_of("mlp", (1, 8, 8), 10, 1, ("largest",))
    assert np.array_equal(frozen(part)["fc1.weight"], whole["fc1.weight"])
    assert np.array_equal(initial(part)["out.weight"], whole["out.weight"])


def test_spread_and_fill():
    values = first_values(1, TensorSpec("x", (20_000,), 1.0, 0.5))
    assert values.dtype == np.float32
    assert values.min() >= 0.5
    assert values.max() < 1.5
    assert abs(values.mean() - 1.0) < 0.01
    assert abs(values.std() - 0.5 / 3**0.5) < 0.01
    assert first_values(1, TensorSpec("x", (2, 2), 1.0)).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_a_bell_is_nearly_normal_and_as_wide_as_said():
    tensor = TensorSpec("x", (100, 2000), 1.0, 0.5, bell=True)
    values = first_values(1, tensor).astype(np.float64) - 1.0
    assert abs(values.mean()) < 0.005
    assert abs(values.std() - 0.5) < 0.005
    assert abs((values**4).mean() / (values**2).mean() ** 2 - 2.9) < 0.05
    bits = Bits.of(1, "x")
    total = bits.uniform(200_000)
    for _ in range(11):
        total = total + bits.uniform(200_000)
    assert np.array_equal(first_values(1, tensor).ravel(), (total - np.float32(6)) * np.float32(0.5) + np.float32(1))


def test_a_normal_start_has_the_spread_of_a_uniform_one_and_leaves_constants():
    even, bell = (spec_of("resnet8", (1, 8, 8), 10, 1, bell=bell) for bell in (False, True))
    for one, other in zip(even.trainable, bell.trainable, strict=True):
        assert other.bell == bool(one.spread)
        assert other.spread == one.spread / 3**0.5
        assert other.fill == one.fill
    assert ModelSpec.from_json(bell.to_json()) == bell
    assert "bell" not in str(even.to_json())
