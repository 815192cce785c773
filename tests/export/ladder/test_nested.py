"""Nested codes: what their form computes, that each width stays near separate rounding, and bundles of real files."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from export.forms import RESCALED_BITS, Integer, Rescaled, Uniform
from export.gate import check
from export.graph import float_graph, weights_of
from export.grids import PROFILES, RANGES, place
from export.int8 import ranges_of
from export.ladder.nested import bundled, nested_forms
from export.refused import ExportError
from export.sessions import answers, open_session
from export.store.planes import pack
from export.variant import twin, write
from tests.export.ladder.conftest import SHAPES
from wire.pieces.bundle import cut

WIDTHS = (8, 6, 5, 4, 3, 2)
CODES = np.array([[0, 1, 2], [3, 2, 1]], np.uint8)
ONE = np.ones(2, np.float32)
HALF = 1 << (RESCALED_BITS - 1)


def whole(*values):
    return np.array(values, np.int32)


def of(source, arch):
    model = float_graph(source(arch).spec, source(arch).params)
    return model, weights_of(model)


def total_db(weights, forms):
    power = sum(np.square(value, dtype=np.float64).sum() for value in weights.values())
    lost = sum(np.square(forms[name].values() - value, dtype=np.float64).sum() for name, value in weights.items())
    return 10 * np.log10(power / lost)


def test_a_rescaled_form_computes_what_it_says():
    factor, offset = whole(60 << 16, (30 << 16) + 20_000), whole(10 << 16, HALF)
    form = Rescaled(2, CODES, factor, offset, np.array([0.5, 0.1], np.float32))
    by_hand = [[((f * c + o) >> 16) - 128 for c in row] for row, f, o in zip(
        CODES.astype(int).tolist(), factor.tolist(), offset.tolist(), strict=True)]  # fmt: skip
    assert form.int8.dtype == np.int8 and form.int8.tolist() == by_hand
    assert by_hand[0] == [-118, -58, 2]
    assert np.array_equal(form.values(), form.int8.astype(np.float32) * form.scale[:, None])
    assert form.payload_bytes == 2 * 1 + 3 * 8  # two planes of a byte; scale, factor and offset of two channels
    assert not form.as_bytes and np.array_equal(form.channel_scale, form.scale)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Rescaled(2, CODES, whole(128 << 16, 0), whole(0, 0), ONE),  # 256 is no byte
        lambda: Rescaled(2, CODES, whole(0, 0), whole(-1, 0), ONE),  # nor is -1
        lambda: Rescaled(2, CODES, whole(1, 1).astype(np.int64), whole(0, 0), ONE),
        lambda: Rescaled(2, CODES, whole(1, 1), whole(0, 0).astype(np.int16), ONE),
        lambda: Rescaled(2, CODES, whole(1), whole(0, 0), ONE),
        lambda: Rescaled(2, CODES, whole(1, 1), whole(0, 0), ONE * 0),
        lambda: Rescaled(1, CODES, whole(1, 1), whole(0, 0), ONE),
    ],
)
def test_a_rescaled_form_that_no_file_could_compute_is_refused(wrong):
    with pytest.raises(ExportError):
        wrong()


def test_a_rescaled_form_has_no_place_in_the_profile_float(source):
    model, weights = of(source, "mlp-32")
    with pytest.raises(ExportError, match="profile int8"):
        write(model, nested_forms(weights, 4, "int8"), "float")


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("arch", SHAPES)
def test_nodes_compute_what_the_twin_stores(arch, bits, source):
    one = source(arch)
    model, weights = of(source, arch)
    forms, inputs = nested_forms(weights, bits, "int8"), one.checks[:16]
    assert all(isinstance(form, Rescaled) for form in forms.values())
    ranges = ranges_of(model, inputs)
    reference = one.answers({name: form.values() for name, form in forms.items()}, inputs)
    plain = twin(model, forms, ranges)
    check(write(model, forms, "int8", ranges), model, inputs, reference, "int8", twin=plain, rounds=1)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_model_from_string(plain).graph.initializer}
    assert all(np.array_equal(stored[name], form.int8) for name, form in forms.items())


def test_the_extremes_of_every_reach_come_back_at_8_bits():
    """A channel may reach over 1 to 255 whole numbers, from anywhere: stretched over 256 codes none may be lost."""
    for reach in range(1, 256):
        values = np.arange(reach + 1, dtype=np.float32)
        row = np.concatenate([values - np.float32(reach // 3), np.zeros(256 - reach - 1, np.float32)])
        weight = np.stack([row, np.linspace(-128, 127, 256, dtype=np.float32)])
        alone, nested = place(weight, 8, "minmax", "int8"), nested_forms({"w": weight}, 8, "int8")["w"]
        assert isinstance(alone, Integer) and np.array_equal(nested.int8, alone.int8), reach


@pytest.mark.parametrize("arch", SHAPES)
def test_8_bits_are_those_of_separate_rounding(arch, source):
    _, weights = of(source, arch)
    for profile in PROFILES:
        for name, form in nested_forms(weights, 8, profile).items():
            alone = place(weights[name], 8, "minmax", profile)
            assert isinstance(form, Uniform) or np.array_equal(form.int8, alone.int8)
            assert isinstance(form, Rescaled) or np.array_equal(form.codes, alone.codes)
            error = np.square(form.values() - weights[name]).sum()
            assert error <= np.square(alone.values() - weights[name]).sum() * 1.0001


@pytest.mark.parametrize("profile", PROFILES)
def test_narrow_codes_are_the_upper_bits_of_the_wide_ones(profile, source):
    _, weights = of(source, "cnn-8-16")
    wide = nested_forms(weights, 8, profile)
    for bits in WIDTHS:
        for name, form in nested_forms(weights, bits, profile).items():
            assert np.array_equal(form.codes, wide[name].codes >> (8 - bits))
            assert np.array_equal(pack(form.codes, bits), pack(wide[name].codes, 8)[:bits])


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("arch", SHAPES)
def test_no_width_of_4_bits_and_more_is_far_from_separate_rounding(arch, profile, source):
    _, weights = of(source, arch)
    for bits in (8, 6, 5, 4):
        alone = {
            name: min((place(value, bits, each, profile) for each in RANGES),
                      key=lambda form: np.square(form.values() - value).sum())
            for name, value in weights.items()
        }  # fmt: skip
        below = total_db(weights, alone) - total_db(weights, nested_forms(weights, bits, profile))
        assert below <= 1.5, (bits, below)


@pytest.mark.parametrize("arch", SHAPES)
def test_whole_numbers_cost_next_to_nothing_more(arch, source):
    """On levels half a number off, 6 bits would lose 0.7 dB more than the profile float does."""
    _, weights = of(source, arch)
    for bits in (6, 5, 4):
        found = [total_db(weights, nested_forms(weights, bits, profile)) for profile in ("float", "int8")]
        assert found[0] - found[1] <= 0.5


def test_plain_truncation_would_be_far_worse(source):
    """So the test above can fail."""
    _, weights = of(source, "cnn-8-16")
    forms = {}
    for name, value in weights.items():
        wide = place(value, 8, "minmax", "float")
        forms[name] = Uniform(4, wide.codes >> 4, wide.scale * np.float32(16), wide.low)
    alone = {name: place(value, 4, "ls", "float") for name, value in weights.items()}
    assert total_db(weights, alone) - total_db(weights, forms) > 3


@pytest.mark.parametrize("profile", PROFILES)
def test_channels_of_one_value_of_zeros_and_next_to_nothing(profile):
    rows = [np.zeros(24), np.full(24, 0.25), np.full(24, -3.0), np.linspace(-1, 1, 24), np.linspace(0.5, 0.6, 24)]
    weight = np.array([*rows, np.linspace(-1e-30, 1e-30, 24), np.linspace(-0.1, 50, 24)], np.float32)
    for bits in WIDTHS:
        form = nested_forms({"w": weight}, bits, profile)["w"]
        alone = place(weight, bits, "minmax", profile)
        assert np.isfinite(form.values()).all()
        assert not form.values()[0].any()
        error, reach = np.abs(form.values() - weight).max(1), np.ptp(weight, axis=1)
        assert (error[1:5] <= np.abs(alone.values() - weight).max(1)[1:5] * 2 + reach[1:5] * 2.0**-bits + 1e-6).all()


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("widths", [WIDTHS, (6, 3), (2,)])
def test_every_file_is_a_part_of_its_bundle(profile, widths, source):
    one = source("cnn-8-16")
    model, weights = of(source, "cnn-8-16")
    ranges = ranges_of(model, one.checks) if profile == "int8" else None
    files = {bits: write(model, nested_forms(weights, bits, profile), profile, ranges) for bits in widths}
    bundle, need = bundled(weights, files, profile)
    assert need[max(widths)] == len(bundle)
    for bits, file in files.items():
        found = cut(bundle[: need[bits]], bits)
        assert found == file
        assert np.array_equal(answers(open_session(found), one.checks), answers(open_session(file), one.checks))


def test_files_of_other_weights_are_not_bundled(source):
    model, weights = of(source, "cnn-8-16")
    file = write(model, nested_forms(weights, 4, "float"), "float")
    with pytest.raises(Exception, match="E-BUNDLE"):
        bundled({name: value[::-1].copy() for name, value in weights.items()}, {4: file}, "float")
