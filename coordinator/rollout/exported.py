"""Reads what `bitfleet export` left: a report, a golden blob, a file for each variant; sizes and digests anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wire.errors import StateError, WireError
from wire.messages.fields import (
    choice_field,
    digest_field,
    float_field,
    id_field,
    int_field,
    known_field,
    list_field,
    objects_field,
    text_field,
)
from wire.messages.golden import decode_golden
from wire.messages.manifest import MOST_VARIANTS, PROFILES, Measured, Variant
from wire.messages.plan import MAX_BYTES
from wire.pieces.assembly import digest_file
from wire.spec import parse_json

__all__ = ["Export", "read_export"]

_SCHEMA = 1
_REPORT_BYTES = 4 << 20
_GOLDEN_BYTES = 1 << 26
_REMEDY = "export the model again with `bitfleet export`"


@dataclass(frozen=True, slots=True)
class Export:
    """An exported model, every field checked. `files` are its files by digest, the golden blob and bundles included."""

    model: str
    content: str
    input: tuple[int, ...]
    outputs: int
    labels: tuple[str, ...]
    preprocessing: str
    lineage: Mapping[str, Any]
    golden: str
    golden_bytes: int
    variants: tuple[Variant, ...]
    files: Mapping[str, Path]


def read_export(folder: Path) -> Export:
    """Returns what is in an export folder; raises StateError with file, field and remedy where anything is wrong."""
    report = _report(folder / "report.json")
    with _naming(folder / "report.json"):
        if report.get("schema") != _SCHEMA:
            raise WireError(f"field 'schema' is {report.get('schema')!r}, this version reads {_SCHEMA}")
        known = _facts(report)
        golden = _file(folder, report, "golden")
        golden_bytes = _sized(golden, 1, _GOLDEN_BYTES)
    files, variants = {digest_file(golden): golden}, []
    for at, entry in enumerate(_entries(folder / "report.json", report)):
        with _naming(folder / "report.json", f"variants[{at}]"):
            variants.append(_variant(folder, entry, text_field(report, "machine"), files))
    export = Export(golden=next(iter(files)), golden_bytes=golden_bytes, variants=tuple(variants), files=files, **known)
    with _naming(golden):
        _check_golden(golden, export)
    return export


def _report(path: Path) -> dict[str, Any]:
    with _naming(path):
        _sized(path, 1, _REPORT_BYTES)
        try:
            report = parse_json(path.read_text("utf-8"))
        except (ValueError, RecursionError) as exc:
            raise WireError(f"it is not JSON: {exc}") from exc
        if not isinstance(report, dict):
            raise WireError("it holds no object")
        return report


def _facts(report: Mapping[str, Any]) -> dict[str, Any]:
    lineage = report.get("lineage")
    if not isinstance(lineage, dict):
        raise WireError("field 'lineage' is not an object")
    for name in ("rounds", "devices"):
        if lineage.get(name) is not None:
            int_field(lineage, name, 0, 1 << 53)
    if lineage.get("epsilon") is not None:
        float_field(lineage, "epsilon", 0, 1e300)
    outputs = int_field(report, "outputs", 1, 1 << 24)
    labels = list_field(report, "labels", 0, 4096, lambda one: text_field(one, "labels"))
    if labels and len(labels) != outputs:
        raise WireError(f"field 'labels' has {len(labels)} texts, and there are {outputs} outputs")
    return {
        "model": id_field(report, "model"),
        "content": digest_field(report, "content"),
        "input": list_field(report, "input", 1, 8, lambda one: int_field(one, "input", 1, 1 << 24)),
        "outputs": outputs,
        "labels": labels,
        "preprocessing": text_field(report, "preprocessing", 1000),
        "lineage": {"rounds": None, "devices": None, "epsilon": None, **lineage, "run": text_field(report, "run")},
    }


def _entries(path: Path, report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    with _naming(path):
        entries = objects_field(report, "variants", 1, MOST_VARIANTS)
        named = [str(entry.get("name")) for entry in entries]
        if len(set(named)) < len(named):
            raise WireError("field 'variants' has two with the same name")
    return entries


def _variant(folder: Path, entry: Mapping[str, Any], machine: str, files: dict[str, Path]) -> Variant:
    file = _file(folder, entry, "file")
    digest, size = digest_field(entry, "sha256"), int_field(entry, "bytes", 1, MAX_BYTES)
    if _sized(file, 1, MAX_BYTES) != size:
        raise WireError(f"field 'bytes' is {size}, and {file.name} has {file.stat().st_size} bytes")
    if digest_file(file) != digest:
        raise WireError(f"field 'sha256' is {digest[:12]}..., and {file.name} holds other bytes")
    files[digest] = file
    bundle, prefix = _bundle(folder, entry, files)
    return Variant(
        name=id_field(entry, "name"),
        profile=choice_field(entry, "profile", PROFILES),
        bits=float_field(entry, "bits", 0.5, 32),
        digest=digest,
        size=size,
        operators=list_field(entry, "operators", 0, 64, lambda one: text_field(one, "operators")),
        min_runtime=text_field(entry, "min_runtime", 20),
        tolerance=float_field(entry, "tolerance", 0, 1e6),
        measured=_measured(entry, machine),
        bundle=bundle,
        prefix=prefix,
    )


def _measured(entry: Mapping[str, Any], machine: str) -> Measured:
    memory = entry.get("memory_bytes")
    return Measured(
        on=machine,
        accuracy=known_field(entry, "accuracy", 1.0),
        examples=int_field({"examples": entry.get("examples", 0)}, "examples", 0, 1 << 40),
        latency_ms=known_field(entry, "latency_ms", 1e9),
        load_ms=known_field(entry, "load_ms", 1e9),
        memory_bytes=None if memory is None else int_field(entry, "memory_bytes", 0, 1 << 50),
    )


def _bundle(folder: Path, entry: Mapping[str, Any], files: dict[str, Path]) -> tuple[str, int]:
    """Returns the digest of the bundle that the file can be cut from, and how many bytes of it; empty if of none."""
    digest = digest_field({"bundle": entry.get("bundle", "")}, "bundle", empty=True)
    if not digest:
        return "", int_field({"prefix": entry.get("prefix", 0)}, "prefix", 0, 0)
    path = _file(folder, entry, "bundle_file")
    if digest_file(path) != digest:
        raise WireError(f"field 'bundle' is {digest[:12]}..., and {path.name} holds other bytes")
    prefix = int_field(entry, "prefix", 1, _sized(path, 1, MAX_BYTES))
    files[digest] = path
    return digest, prefix


def _check_golden(path: Path, export: Export) -> None:
    inputs, answers = decode_golden(path.read_bytes())
    if inputs.shape[1:] != export.input:
        raise WireError(f"its inputs have the shape {inputs.shape[1:]}, and the report says {export.input}")
    for variant in export.variants:
        rows = answers.get(variant.name)
        if rows is None or rows.shape[1] != export.outputs:
            raise WireError(f"it has not {export.outputs} outputs for variant {variant.name!r}")


def _file(folder: Path, table: Mapping[str, Any], field: str) -> Path:
    name = text_field(table, field)
    if Path(name).name != name or not (folder / name).is_file():
        raise WireError(f"field {field!r} is {name!r}, and there is no such file in {folder}")
    return folder / name


def _sized(path: Path, least: int, most: int) -> int:
    try:
        size = path.stat().st_size
    except OSError as exc:
        raise WireError(f"{path.name} cannot be read: {exc.strerror}") from exc
    if not least <= size <= most:
        raise WireError(f"{path.name} has {size} bytes, expected {least} to {most}")
    return size


@contextmanager
def _naming(path: Path, place: str = "") -> Iterator[None]:
    """Puts the file and the place in it before whatever is found wrong within."""
    try:
        yield
    except WireError as exc:
        where = f"{path}: {place}: " if place else f"{path}: "
        raise StateError(where + exc.message, remedy=_REMEDY) from exc
    except OSError as exc:
        raise StateError(f"{path} cannot be read: {exc}", remedy=_REMEDY) from exc
