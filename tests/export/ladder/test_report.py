"""The report as people read it: one table, what is unknown said so, and a picture with or without accuracies."""

from __future__ import annotations

import builtins
from dataclasses import replace

import pytest

from export.ladder.mixed import Budget
from export.ladder.report import draw, markdown, write_report
from wire.errors import ConfigError, StateError

FLOAT = {"profiles": ("float",), "bits": (8, 2)}


def cells(page, name):
    line = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_the_figures(source, export):
    report, _ = export(source("mlp-32"), **FLOAT)
    narrow, whole = report["variants"][1], report["float"]
    row = cells(markdown(report), "float-2")
    assert row[1:4] == ["2", f"{narrow['bytes']:,}", f"{narrow['bytes'] / whole['bytes']:.3f}"]
    assert row[4] == f"{100 * narrow['accuracy']:.2f} %"
    assert row[5] == f"{100 * (whole['accuracy'] - narrow['accuracy']):.2f}"
    assert row[9:] == ["3.0 MB", narrow["ranges"]]


def test_the_tolerance_that_was_used_is_on_the_page(source, export):
    report, _ = export(source("mlp-32"), **FLOAT)
    assert "on 64 inputs; allowed was 0.0001. The class on top is the same on all." in markdown(report)
    one = source("mlp-32")
    large = {name: values * 1000 if name.startswith("out.") else values for name, values in one.params.items()}
    report, _ = export(replace(one, params=large), **FLOAT)
    allowed = report["variants"][0]["allowed"]
    assert allowed > 1e-4
    entries = [{**entry, "allowed": allowed, "ties": 3} for entry in report["variants"]]
    page = markdown({**report, "variants": entries})
    assert f"allowed was {allowed:.2g}, 1e-5 of the largest output." in page
    assert "the same on all but 3 in one file, whose two best outputs are as good as equal." in page
    assert "PyTorch's" not in markdown(export(source("mlp-32"), profiles=("int8",), bits=(8,))[0])


def test_what_is_unknown_is_said_and_nothing_else_is(source, export):
    page = markdown(export(source("mlp-32", examples=0), **FLOAT)[0])
    assert "Accuracy is unknown; no examples." in page
    assert cells(page, "float-2")[4:6] == ["unknown", "unknown"]
    assert "0 examples" not in page


def test_examples_that_only_choose(source, export):
    page = markdown(export(source("mlp-32", examples=30), **FLOAT)[0])
    assert "Accuracy is unknown; ranges and grids were chosen on 30 examples." in page


def test_what_was_refused_is_on_the_page_with_the_reason(source, export):
    report, _ = export(source("mlp-32"), budget=Budget(most_bytes=10), **FLOAT)
    page = markdown(report)
    assert f"- `float-mixed`: {report['refused'][0]['reason']}" in page and "allowed are 10" in page
    assert "Which layer" not in page


def test_each_profile_has_its_own_table_of_layers(source, export):
    report, _ = export(source("mlp-32"), bits=(8,), budget=Budget(most_drop=1.0))
    parts = markdown(report).split("## Which layer loses the accuracy: ")[1:]
    assert [part.split("\n")[0] for part in parts] == ["int8", "float"]
    for part, profile in zip(parts, ("int8", "float"), strict=True):
        rows = {one["bits"]: one for one in report["sensitivity"]
                if (one["profile"], one["layer"]) == (profile, "fc1.weight")}  # fmt: skip
        wanted = [f"{100 * one['accuracy']:.2f} ({one['loss']:+.4f})" for one in rows.values()]
        assert cells(part, "fc1.weight")[1:] == wanted


@pytest.mark.parametrize("examples", [0, 120])
def test_a_picture_is_drawn_with_and_without_accuracies(examples, source, export, tmp_path):
    report, out = export(source("mlp-32", examples=examples), **FLOAT)
    written = write_report(report, out)
    assert {path.name for path in written} == {"report.json", "report.md", "report.png"}
    draw([report, report], tmp_path / "both.png")
    draw([{**report, "variants": []}], tmp_path / "none.png")
    for path in (out / "report.png", tmp_path / "both.png", tmp_path / "none.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_table_says_the_same(source, export, monkeypatch, tmp_path):
    report, out = export(source("mlp-32"), **FLOAT)
    plain = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert {path.name for path in write_report(report, out)} == {"report.json", "report.md"}
    with pytest.raises(ConfigError, match="matplotlib"):
        draw([report], tmp_path / "picture.png")


def test_a_report_that_cannot_be_written_says_so(source, export, tmp_path):
    report, _ = export(source("mlp-32"), **FLOAT)
    with pytest.raises(StateError, match="make room"):
        write_report(report, tmp_path / "nowhere", picture=False)
