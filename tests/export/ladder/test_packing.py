"""A ladder in ONNX's own types: which runtime each file needs, what a budget makes of it, and what cannot be asked."""

from __future__ import annotations

import json

import onnx
import onnxruntime
import pytest

from coordinator.rollout.exported import read_export
from edge_agent.serving.policy import release
from export.ladder.drafts import Wish
from export.ladder.folder import prepare
from export.ladder.mixed import Budget
from export.ladder.report import markdown
from tests.export.ladder.conftest import SHAPES
from tests.export.test_command import export as command
from tests.export.test_command import home as home  # noqa: PLC0414 - a fixture
from wire.errors import ConfigError

HERE = release(onnxruntime.__version__)
NEEDS = {8: "1.16", 4: "1.23", 3: "1.16", 2: "1.25"}
BITS = tuple(bits for bits in NEEDS if release(NEEDS[bits]) <= HERE)
native_bits = pytest.mark.skipif(len(BITS) < len(NEEDS), reason="onnxruntime is too old for the types of 2 bits")


def metadata(path):
    return {one.key: one.value for one in onnx.load_model(str(path)).metadata_props}


@pytest.mark.parametrize("arch", SHAPES)
def test_each_file_says_which_runtime_it_needs(arch, source, export):
    report, out = export(source(arch), packing="native", bits=BITS)
    assert report["refused"] == [] and len(report["variants"]) == 2 * len(BITS)
    for one in report["variants"]:
        assert one["min_runtime"] == NEEDS[int(one["bits"])] == metadata(out / one["file"])["min_runtime"]
    read = read_export(out)
    assert [one.min_runtime for one in read.variants] == [one["min_runtime"] for one in report["variants"]]


def test_the_page_names_what_older_runtimes_cannot_take(source, export):
    report, _ = export(source("mlp-32"), packing="native", bits=(8, 4))
    assert "Only for ONNX Runtime 1.23 and newer: `int8-4`, `float-4`.\n" in markdown(report)
    assert "Only for" not in markdown(export(source("mlp-32"), bits=(8, 4))[0])


@native_bits
@pytest.mark.parametrize("profile", ["int8", "float"])
@pytest.mark.parametrize("bits", [4, 2])
def test_a_budget_is_kept_and_the_file_needs_what_its_widths_need(bits, profile, source, export, tmp_path):
    wish = {"packing": "native", "profiles": (profile,), "bits": (bits,)}
    even = export(source("cnn1d-8-24"), **wish)[0]["variants"][0]
    for spare in (0, 150):
        most = even["bytes"] + spare
        report, _ = export(source("cnn1d-8-24"), out=tmp_path / "mixed", budget=Budget(most_bytes=most), **wish)
        mixed = report["variants"][1]
        assert report["refused"] == [] and mixed["bytes"] <= most
        needs = [NEEDS.get(width, "1.16") for width in mixed["widths"].values()]
        assert mixed["min_runtime"] == max(needs, key=release)


@native_bits
def test_a_file_of_any_kind_is_known_as_ours(source, export):
    _, out = export(source("mlp-32"), packing="native", bits=(8, 4, 2))
    prepare(out)
    export(source("mlp-32"), bits=(3,), profiles=("float",))
    assert {path.name for path in out.iterdir()} == {"float-3.onnx", "golden.bin", "report.json", "report.md"}
    whole = (out / "float-3.onnx").read_bytes()
    (out / "float-3.onnx").write_bytes(b"\x08\x09" + whole[2:])
    with pytest.raises(ConfigError, match=r"float-3\.onnx"):
        prepare(out)


@pytest.mark.parametrize(
    ("wish", "words"), [({"packing": "int4"}, "packing 'int4'"), ({"packing": "native", "nested": True}, "nested")]
)
def test_what_cannot_be_asked(wish, words):
    with pytest.raises(ConfigError, match=words):
        Wish(**wish)


def test_the_command(home, tmp_path, capsys):
    words = ("--home", home, "--bits", "4,3", "--profile", "float", "--packing", "native", "--out", tmp_path / "out")
    assert command(*words) == 0
    assert "ONNX Runtime 1.23 and newer: `float-4`" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [one["min_runtime"] for one in report["variants"]] == ["1.23", "1.16"]
    with pytest.raises(ConfigError, match="bundle"):
        command(*words, "--nested")
