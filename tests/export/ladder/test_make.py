"""From a model to files: every kind of net, with and without examples, and a report that a roll-out accepts."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest

from coordinator.rollout.exported import read_export
from export.forms import Table
from export.graph import float_graph, weights_of
from export.ladder.drafts import Bench, Wish, drafts
from export.ladder.make import make_ladder
from export.ladder.mixed import Budget
from export.sessions import answers, open_session
from models.dataset import Dataset
from tests.export.ladder.conftest import CALIBRATION, EXAMPLES, OUTPUTS, SHAPES, spread
from wire.errors import ConfigError
from wire.messages.golden import decode_golden
from wire.params import params_digest
from wire.pieces.bundle import cut

FIELDS = {
    "name", "profile", "bits", "widths", "ranges", "file", "bytes", "sha256", "operators", "min_runtime", "accuracy",
    "loss", "examples", "size_ratio", "latency_ms", "latency_ratio", "load_ms", "load_ratio", "memory_bytes",
    "max_difference", "agreement", "tolerance", "bundle", "prefix", "allowed", "ties",
}  # fmt: skip


def names(report):
    return [one["name"] for one in report["variants"]]


def refusals(report):
    return {one["name"]: one["reason"] for one in report["refused"]}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith("report.")}


def metadata(data):
    return {one.key: one.value for one in onnx.load_model_from_string(data).metadata_props}


@pytest.mark.parametrize("arch", SHAPES)
def test_every_net_becomes_files_that_a_roll_out_accepts(arch, source, export):
    report, out = export(source(arch))
    assert names(report) == ["int8-8", "int8-4", "int8-2", "float-8", "float-4", "float-2"]
    assert report["refused"] == []
    assert {path.name for path in out.iterdir()} == {
        *(f"{name}.onnx" for name in names(report)), "golden.bin", "report.json", "report.md",
    }  # fmt: skip
    for one in report["variants"]:
        data = (out / one["file"]).read_bytes()
        assert set(one) == FIELDS
        assert (one["bytes"], one["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert one["examples"] == EXAMPLES - CALIBRATION
        assert 0 <= one["accuracy"] <= 1 and one["loss"] > 0
        assert one["bits"] in (8, 4, 2) and set(one["widths"].values()) == {int(one["bits"])}
        assert metadata(data)["run"] == "run-1" and metadata(data)["ranges"] == one["ranges"]
        assert one["ranges"].endswith("(loss)")
    read = read_export(out)
    assert [variant.name for variant in read.variants] == names(report)
    assert read.content == report["content"] == params_digest(source(arch).values)


@pytest.mark.parametrize("arch", ["cnn-8-16", "resnet8-8"])
def test_golden_outputs_are_the_files_own(arch, source, export):
    report, out = export(source(arch))
    inputs, outputs = decode_golden((out / report["golden"]).read_bytes())
    assert list(outputs) == names(report)
    for one in report["variants"]:
        own = answers(open_session((out / one["file"]).read_bytes()), inputs)
        assert np.array_equal(own, outputs[one["name"]])
        share = {"int8": 0.05, "float": 1e-3}[one["profile"]]
        assert one["tolerance"] == pytest.approx(share * np.abs(own).max() + 1e-4)


def test_equal_input_gives_equal_files(source, export, tmp_path):
    for name in ("a", "b"):
        export(source("cnn-8-16"), out=tmp_path / name, nested=True, budget=Budget(most_drop=0.02))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_without_examples_there_is_the_profile_float_and_no_accuracy(source, export):
    report, out = export(source("cnn-8-16", examples=0))
    assert names(report) == ["float-8", "float-4", "float-2"]
    assert list(refusals(report)) == ["int8"]
    assert "there are none" in refusals(report)["int8"] and "--profile float" in refusals(report)["int8"]
    assert report["float"]["accuracy"] is None and report["calibration"] == report["examples"] == 0
    for one in report["variants"]:
        assert one["accuracy"] is None and one["loss"] is None and one["examples"] == 0
        assert one["ranges"].endswith("(sqnr)")
    inputs, _ = decode_golden((out / "golden.bin").read_bytes())
    assert ((inputs >= 0) & (inputs < 1)).all() and inputs.std() > 0.2
    assert all(variant.measured.accuracy is None for variant in read_export(out).variants)


def test_integers_alone_without_examples_are_an_error_that_touches_nothing(source, tmp_path):
    with pytest.raises(ConfigError, match="there are none; name a task"):
        make_ladder(source("cnn-8-16", examples=0), Wish(profiles=("int8",)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_fewer_examples_than_choose_leave_no_accuracy(source, tmp_path):
    said = []
    few = source("mlp-32", examples=CALIBRATION - 10)
    report = make_ladder(few, Wish((4,), rounds=1), tmp_path, said.append)
    assert report["calibration"] == CALIBRATION - 10
    assert [one["accuracy"] for one in report["variants"]] == [None, None]
    assert said[0].startswith("no accuracy")
    assert report["variants"][0]["ranges"].endswith("(loss)")


@pytest.mark.parametrize("examples", [0, EXAMPLES])
def test_a_net_of_one_output_has_no_accuracy_and_goes_by_its_numbers(examples, source, export):
    report, out = export(source("mlp-32", examples=examples, outputs=1), budget=Budget(most_drop=0.1))
    profiles = ["int8", "float"] if examples else ["float"]
    assert names(report) == [f"{profile}-{bits}" for profile in profiles for bits in (8, 4, 2)]
    assert {(one["accuracy"], one["agreement"]) for one in report["variants"]} == {(None, None)}
    assert all("(sqnr)" in one["ranges"] for one in report["variants"])
    assert "one output" in refusals(report)["float-mixed"]
    assert len(decode_golden((out / "golden.bin").read_bytes())[0]) == 8
    assert read_export(out).outputs == 1


def test_one_output_that_integers_make_useless_is_refused(source, export):
    """On examples a thousand times larger than those that chose the ranges; a class on top there always is."""
    one = source("mlp-32", outputs=1)
    x = one.data.x.copy()
    x[CALIBRATION:] *= 1000
    report, out = export(replace(one, data=Dataset(x, one.data.y)), bits=(8,))
    assert names(report) == ["float-8"]
    assert "the output of 50 examples is off by" in refusals(report)["int8-8"]
    assert "--calibration" in refusals(report)["int8-8"]
    assert not (out / "int8-8.onnx").exists()


@pytest.mark.parametrize("examples", [0, EXAMPLES])
def test_frozen_tensors_are_in_the_files_and_in_the_content(examples, source, export):
    one = source("cnn-8-16", examples=examples, freeze=("conv1.*", "out.bias"))
    report, out = export(one, profiles=("float",))
    assert "conv1.weight" in report["variants"][0]["widths"]
    wide = answers(open_session((out / "float-8.onnx").read_bytes()), one.checks)
    assert np.abs(wide - one.answers({}, one.checks)).max() < 0.05 * np.abs(wide).max()
    assert report["content"] == params_digest(one.values)
    assert {"conv1.bias", "out.bias"} <= set(one.values)


def test_a_trunk_takes_the_place_of_the_seed(source, export):
    seeded = source("cnn-8-16", freeze=("conv1.*",))
    trunk = {name: spread(f"trunk {name}", seeded.values[name]) for name in ("conv1.weight", "conv1.bias")}
    own = type(seeded)(seeded.spec, seeded.params, "tiny", seeded.data, CALIBRATION, still=trunk)
    report, out = export(own, profiles=("float",))
    wide = answers(open_session((out / "float-8.onnx").read_bytes()), own.checks)
    assert np.abs(wide - own.answers({}, own.checks)).max() < 0.05 * np.abs(wide).max()
    assert np.abs(wide - seeded.answers({}, own.checks)).max() > 0.05 * np.abs(wide).max()
    assert report["content"] != params_digest(seeded.values)


def with_tables(source, bits, names=None):
    model = source("mlp-32")
    weights = weights_of(float_graph(model.spec, model.params))
    tables = {
        name: np.linspace(0.5, -0.4, 2**bits).astype(np.float32)[np.argsort(np.sin(np.arange(2**bits)))]
        for name in names or weights
    }
    params = {
        name: value if name not in tables else tables[name][np.abs(value[..., None] - tables[name]).argmin(-1)]
        for name, value in model.params.items()
    }
    return type(model)(model.spec, params, "tiny", model.data, CALIBRATION, tables=tables)


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_learned_centres_are_kept_as_they_are(bits, source, export):
    own = with_tables(source, bits)
    report, out = export(own, bits=(4,))
    assert names(report) == ["int8-4", "int8-centres", "float-4", "float-centres"]
    entry = report["variants"][3]
    assert set(entry["widths"].values()) == {bits} and entry["bits"] == bits
    found = answers(open_session((out / entry["file"]).read_bytes()), own.checks)
    assert np.abs(found - own.answers({}, own.checks)).max() < 1e-4
    read_export(out)


def test_a_weight_without_centres_stays_at_8_bits(source, export):
    report, _ = export(with_tables(source, 1, ["out.weight"]), bits=(), profiles=("float",))
    assert report["variants"][0]["widths"] == {"fc1.weight": 8, "out.weight": 1}


def test_centres_are_the_nearest_also_of_a_table_out_of_order(source):
    own = with_tables(source, 3)
    weights = weights_of(float_graph(own.spec, source("mlp-32").params))
    bench = Bench(own, float_graph(own.spec, own.params), weights, Wish((), ("float",)))
    for name, form in drafts(bench)["float-centres"]().forms.items():
        assert isinstance(form, Table)
        off = np.abs(weights[name][..., None] - own.tables[name])
        assert np.allclose(np.abs(form.values() - weights[name]), off.min(-1))


@pytest.mark.parametrize(
    "tables", [{"out.bias": np.ones(2, np.float32)}, {"out.weight": np.linspace(0, 1, 257, dtype=np.float32)}]
)
def test_centres_that_fit_no_weight_are_refused_and_the_rest_is_written(tables, source, export):
    model = source("mlp-32")
    own = type(model)(model.spec, model.params, "tiny", model.data, CALIBRATION, tables=tables)
    report, out = export(own, bits=(4,), profiles=("float",))
    assert names(report) == ["float-4"] and list(refusals(report)) == ["float-centres"]
    assert "257" in str(refusals(report)) or "out.bias" in str(refusals(report))
    assert not (out / "float-centres.onnx").exists()


@pytest.mark.parametrize("budget", [Budget(most_bytes=100), Budget(most_bytes=2_000)])
def test_a_budget_that_cannot_be_met_costs_no_other_file(budget, source, export):
    report, out = export(source("resnet8-8"), budget=budget, profiles=("float",))
    assert names(report) == ["float-8", "float-4", "float-2"]
    assert str(budget.most_bytes) in refusals(report)["float-mixed"]
    assert "the smallest file" in refusals(report)["float-mixed"]
    assert not (out / "float-mixed.onnx").exists()
    read_export(out)


def test_a_profile_that_cannot_be_made_is_refused_and_the_other_is_written(source, export):
    model = source("mlp-32")
    tiny = {**model.params, "out.weight": model.params["out.weight"] * np.float32(1e-20)}
    report, out = export(type(model)(model.spec, tiny, "tiny", model.data, CALIBRATION))
    assert names(report) == ["float-8", "float-4", "float-2"]
    assert "INT32" in refusals(report)["int8"]
    read_export(out)


def test_nested_files_are_cut_from_their_bundle(source, export):
    report, out = export(source("cnn-8-16"), nested=True, budget=Budget(most_bytes=9_000))
    for one in report["variants"]:
        if one["name"].endswith("-mixed"):
            assert (one["bundle"], one["prefix"]) == ("", 0)
            continue
        assert one["ranges"] == "nested"
        bundle = (out / one["bundle_file"]).read_bytes()
        assert one["bundle"] == hashlib.sha256(bundle).hexdigest() and one["bundle_bytes"] == len(bundle)
        assert cut(bundle[: one["prefix"]], int(one["bits"])) == (out / one["file"]).read_bytes()
    for profile in ("int8", "float"):
        need = [one["prefix"] for one in report["variants"] if one["profile"] == profile and one["bundle"]]
        assert need[0] == (out / f"{profile}.bundle").stat().st_size and need[0] > need[1] > need[2]
    assert {path.name for path in out.glob("*.bundle")} == {"int8.bundle", "float.bundle"}
    assert len([one for one in report["variants"] if one["name"].endswith("-mixed")]) == 2
    read = read_export(out)
    assert [bool(variant.bundle) for variant in read.variants] == [True] * 3 + [False] + [True] * 3 + [False]


def test_the_report_is_whole_and_says_who_lost(source, export):
    report, out = export(source("cnn-8-16"), budget=Budget(most_drop=0.1))
    assert json.loads((out / "report.json").read_text()) == json.loads(json.dumps(report))
    weights = list(report["variants"][0]["widths"])
    for profile in ("int8", "float"):
        table = [one for one in report["sensitivity"] if one["profile"] == profile]
        assert [(one["layer"], one["bits"]) for one in table] == [(w, b) for w in weights for b in (8, 6, 5, 4, 3, 2)]
    assert report["variants"][-1]["ranges"] == "mixed, at most 10 points lost on the examples that choose"
    assert metadata((out / "float-mixed.onnx").read_bytes())["ranges"] == "mixed"
    page = (out / "report.md").read_text()
    for text in (*names(report), "conv1.weight", f"on {EXAMPLES - CALIBRATION} examples", f"on {CALIBRATION} others"):
        assert text in page
    assert len(report["machine"]) <= 200 and report["outputs"] == OUTPUTS


@pytest.mark.parametrize(
    "wish",
    [{"bits": (9,)}, {"bits": (1,)}, {"bits": (4, 4)}, {"profiles": ()}, {"profiles": ("int4",)},
     {"profiles": ("float", "float")}],
)  # fmt: skip
def test_a_wish_that_names_nothing_we_make_is_refused(wish):
    with pytest.raises(ConfigError):
        Wish(**wish)


def test_ranges_that_fit_other_inputs_than_it_sees_are_refused(source, export):
    one = source("mlp-32")
    x = one.data.x.copy()
    x[:CALIBRATION] *= np.float32(0.01)
    report, _ = export(
        replace(one, data=Dataset(x, one.answers({}, x).argmax(1))), bits=(8,), profiles=("int8", "float")
    )
    assert names(report) == ["float-8"]
    reason = refusals(report)["int8-8"]
    assert "that the same weights do not lose in float" in reason and "--calibration" in reason
