"""Export folders: what is right is read, what is wrong is named by file and field, with what to do."""

from __future__ import annotations

import numpy as np
import pytest

from coordinator.rollout.exported import read_export
from tests.coordinator.rollout.exports import NAMES, edit, make_export
from wire.errors import StateError
from wire.messages.golden import encode_golden


@pytest.fixture
def folder(tmp_path):
    return make_export(tmp_path / "export", bundle=True)


def test_an_export_is_read_whole(folder):
    export = read_export(folder)
    assert [variant.name for variant in export.variants] == list(NAMES)
    assert (export.model, export.input, export.outputs, export.labels) == ("digits", (3,), 2, ("no", "yes"))
    assert export.lineage == {"run": "run-1", "rounds": 10, "devices": 4, "epsilon": None}
    four = export.variants[1]
    assert (four.bits, four.profile, four.size, four.prefix) == (4.0, "int8", 1600, 5000)
    assert (four.measured.on, four.measured.accuracy, four.measured.memory_bytes) == ("laptop", 0.9, None)
    assert export.variants[0].bundle == ""
    assert {path.name for path in export.files.values()} == {path.name for path in folder.iterdir()} - {"report.json"}
    assert export.golden_bytes == (folder / "golden.bin").stat().st_size


def refused(folder) -> str:
    with pytest.raises(StateError) as caught:
        read_export(folder)
    assert caught.value.code == "E-STATE"
    assert "bitfleet export" in caught.value.remedy
    assert str(folder) in caught.value.message
    return caught.value.message


WRONG = {
    "schema": [2, None],
    "model": ["", "A b", None],
    "run": [1, ...],
    "content": ["", "0" * 63],
    "input": [[], [0], [1.5], 3, [1] * 9, [4]],
    "outputs": [0, "2", True],
    "labels": [["one"], [1, 2], None],
    "preprocessing": [None, "x" * 1001],
    "lineage": [None, [], {"rounds": -1}, {"devices": "4"}, {"epsilon": "small"}],
    "machine": [None, ...],
    "golden": ["", "../golden.bin", "none.bin", 7, "/etc/hostname"],
    "variants": [[], None, {}, [1]],
    "variants.0.name": ["", "A", "int8-4", "float-9", 4],
    "variants.0.profile": ["int4", None],
    "variants.0.bits": [0, "8", None, 64],
    "variants.0.file": ["", "..", "none.onnx", "a/b", None],
    "variants.0.bytes": [0, 1, 3200.0, ...],
    "variants.0.sha256": ["0" * 64, "x", None],
    "variants.0.operators": [None, [1], "Gemm"],
    "variants.0.min_runtime": [1.16, "x" * 21],
    "variants.0.tolerance": [-1, None],
    "variants.0.accuracy": [1.5, "0.9", True],
    "variants.0.examples": [-1, 0.5],
    "variants.0.latency_ms": [-1],
    "variants.0.load_ms": ["3"],
    "variants.0.memory_bytes": [-1, 1.5],
    "variants.0.prefix": [7],
    "variants.1.bundle": ["0" * 64, "", "nested.bin", 1],
    "variants.1.bundle_file": ["none.bin", "", "a/b", 1, "int8-8.onnx", ...],
    "variants.1.prefix": [0, 9001, None],
}


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in WRONG.items() for value in values])
def test_every_wrong_field_is_named(folder, path, value):
    edit(folder, path, value)
    message = refused(folder)
    last = path.split(".")[-1]
    shown = [last, *(value if isinstance(value, dict) else ())]
    other = {"input": "shape", "name": "variant", "bundle": "'prefix'", "bundle_file": "field 'bundle'"}
    assert any(word in message for word in [*shown, other.get(last, last)]), message


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": NaN}', "[" * 100_000, "\udcff"])
def test_a_report_that_is_none(folder, text):
    (folder / "report.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert "report.json" in refused(folder)


def test_files_that_are_not_there(folder):
    (folder / "int8-8.onnx").unlink()
    assert "variants[0]: field 'file' is 'int8-8.onnx', and there is no such file" in refused(folder)
    make_export(folder)
    (folder / "golden.bin").unlink()
    assert "field 'golden' is 'golden.bin', and there is no such file" in refused(folder)
    (folder / "report.json").unlink()
    assert "report.json cannot be read" in refused(folder)


def test_a_file_that_was_changed_is_seen(folder):
    data = bytearray((folder / "int8-4.onnx").read_bytes())
    data[100] ^= 1
    (folder / "int8-4.onnx").write_bytes(data)
    assert "variants[1]: field 'sha256'" in refused(folder)


@pytest.mark.parametrize(
    ("inputs", "names", "outputs", "said"),
    [
        ((2, 4), NAMES, 2, "inputs have the shape (4,)"),
        ((2, 3), ["int8-8", "int8-4"], 2, "'float-4'"),
        ((2, 3), NAMES, 3, "2 outputs for variant 'int8-8'"),
    ],
)
def test_golden_answers_fit_the_report(folder, inputs, names, outputs, said):
    answers = {name: np.zeros((2, outputs), np.float32) for name in names}
    (folder / "golden.bin").write_bytes(encode_golden(np.zeros(inputs, np.float32), answers))
    assert said in refused(folder)


def test_a_damaged_golden_blob(folder):
    (folder / "golden.bin").write_bytes((folder / "golden.bin").read_bytes()[:-1])
    assert "golden.bin: lengths" in refused(folder)
