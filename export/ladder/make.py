"""The ladder: one file a profile and width, each through the gate, with what it measures. No pass, no file."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.gate import TOLERANCE, check
from export.graph import float_graph, left_of, weights_of
from export.ladder.choice import choose_rule, examples_of
from export.ladder.drafts import Bench, Draft, Wish, drafts, written
from export.ladder.folder import leave, prepare
from export.ladder.golden import golden_blob
from export.ladder.nested import bundled
from export.ladder.source import Judged, Source, judged
from export.proof.clocks import race
from export.proof.memory import memory_of
from export.refused import ExportError
from export.sessions import answers, open_session
from export.variant import computed, twin, widths
from wire.errors import BitfleetError
from wire.params import Array, params_digest

__all__ = ["Wish", "make_ladder"]

_GOLDEN = "golden.bin"
_COMPARED = 1000  # examples
_MOST_LOST = 0.1
_MOST_OFF = 0.2  # of how much the outputs differ among themselves
_MOST_NAME = 150  # of a processor: the manifest takes 200 with what follows
_CALIBRATE = "calibrate on more examples (--calibration), like those it will see, or take the profile float"

Say = Callable[[str], None]


def make_ladder(source: Source, wish: Wish, out: Path, say: Say = lambda text: None) -> dict[str, Any]:
    """Leaves the files that pass in `out`, and none of an earlier export, and returns the report; what did not pass is
    in it with the reason.
    """
    if set(wish.profiles) == {"int8"}:
        examples_of(source)  # else there is nothing to do
    prepare(out)
    if source.chooses is not None and source.states is None:
        say("no accuracy can be stated: all examples choose ranges and grids, or there is one output")
    model = float_graph(source.spec, source.params, source.still)
    bench = Bench(source, model, weights_of(model), wish)
    report = _head(bench)
    files: dict[str, bytes] = {}
    for profile in wish.profiles:
        _add_profile(replace(bench, profile=profile), report, files, say)
    if report["variants"]:
        golden, tolerances = golden_blob(source, report["variants"], files)
        for entry in report["variants"]:
            entry["tolerance"] = tolerances[entry["name"]]
        report["golden"] = _GOLDEN
        files[_GOLDEN] = golden
    leave(out, files)
    return report


def _add_profile(bench: Bench, report: dict[str, Any], files: dict[str, bytes], say: Say) -> None:
    """Adds all that can be made of one profile to report and files; why not, where it cannot."""
    if bench.profile == "int8":
        try:
            bench = replace(bench, rule=choose_rule(bench.source, bench.model, bench.weights))
        except BitfleetError as exc:
            _refuse(report, "int8", exc)
            return
    nested: dict[int, bytes] = {}
    for name, made in drafts(bench).items():
        try:
            draft = made()
            say(f"{name}: {draft.ranges}")
            entry, data = _passed(bench, draft)
        except BitfleetError as exc:
            _refuse(report, name, exc)
            continue
        report["variants"].append(entry)
        report["sensitivity"] += draft.table
        files[entry["file"]] = data
        if draft.nested:
            nested[next(iter(draft.forms.values())).bits] = data
    if nested:
        _add_bundle(bench, nested, report, files)


def _refuse(report: dict[str, Any], name: str, exc: BitfleetError) -> None:
    report["refused"].append({"name": name, "reason": f"{exc.message}; {exc.remedy}" if exc.remedy else exc.message})


def _passed(bench: Bench, draft: Draft) -> tuple[dict[str, Any], bytes]:
    """Returns a file's entry in the report and its bytes, once it has passed."""
    source = bench.source
    data, activations = written(bench, draft)
    weights = {name: computed(form, bench.profile) for name, form in draft.forms.items()}
    found = check(
        data, bench.model, source.checks, source.answers(weights, source.checks), bench.profile,
        twin=twin(bench.model, draft.forms, activations) if activations else None,
        max_bytes=draft.most_bytes, rounds=bench.wish.rounds,
    )  # fmt: skip
    if bench.profile == "int8":
        _check_integers(source, weights, data)
    file = onnx.load_model_from_string(data)
    sizes = {name: values.size for name, values in bench.weights.items()} | left_of(bench.model)
    bits = widths(bench.model, draft.forms)
    entry = {
        "name": draft.name,
        "profile": bench.profile,
        "bits": sum(sizes[name] * each for name, each in bits.items()) / sum(sizes.values()),
        "widths": bits,
        "ranges": f"{draft.ranges}, {draft.limit}" if draft.limit else draft.ranges,
        "file": f"{draft.name}.onnx",
        "bytes": len(data),
        "sha256": sha256(data).hexdigest(),
        "operators": sorted({node.op_type for node in file.graph.node}),
        "min_runtime": next(one.value for one in file.metadata_props if one.key == "min_runtime"),
        **_facts(_stated(source, data)),
        "size_ratio": found.size_ratio,
        "latency_ms": found.latency.first_ms,
        "latency_ratio": found.latency.ratio,
        "load_ms": found.load.first_ms,
        "load_ratio": found.load.ratio,
        "memory_bytes": memory_of(data, source.checks),
        "max_difference": found.max_difference,
        "agreement": found.agreement,
        "allowed": found.tolerance if bench.profile == "float" else None,
        "ties": found.ties if bench.profile == "float" else None,
        "bundle": "",
        "prefix": 0,
    }
    return entry, data


def _check_integers(source: Source, weights: Mapping[str, Array], data: bytes) -> None:
    """Raises ExportError if integers lose much that the same weights in float do not: then the ranges are wrong."""
    examples = source.others or source.chooses
    if examples is None:
        return
    x, y = examples.x[:_COMPARED], examples.y[:_COMPARED]
    right, found = source.answers(weights, x), answers(open_session(data), x)
    if source.spec.outputs < 2:
        _check_values(right, found)
        return
    lost = judged(right, y).accuracy - judged(found, y).accuracy
    if lost > _MOST_LOST:
        raise ExportError(
            f"integers lose {100 * lost:.3g} points on {len(x)} examples that the same weights do not lose in float,"
            f" allowed are {100 * _MOST_LOST:g}",
            remedy=_CALIBRATE,
        )


def _check_values(right: Array, found: Array) -> None:
    """Raises ExportError if the only output is off by much of what tells one example from another."""
    off, spread = float(np.abs(found - right).mean()), float(np.abs(right - right.mean()).mean())
    if len(right) > 1 and off > max(TOLERANCE, _MOST_OFF * spread):
        raise ExportError(
            f"with integers the output of {len(right)} examples is off by {off:.3g} on average, and they are"
            f" {spread:.3g} from their mean: allowed is {_MOST_OFF:g} of that",
            remedy=_CALIBRATE,
        )


def _stated(source: Source, data: bytes) -> Judged | None:
    if source.states is None:
        return None
    return judged(answers(open_session(data), source.states.x), source.states.y)


def _facts(stated: Judged | None) -> dict[str, Any]:
    if stated is None:
        return {"accuracy": None, "loss": None, "examples": 0}
    return {"accuracy": stated.accuracy, "loss": stated.loss, "examples": stated.examples}


def _head(bench: Bench) -> dict[str, Any]:
    source, plain = bench.source, bench.model.SerializeToString()
    whole = _facts(_stated(source, plain))
    session, one = open_session(plain), source.checks[:1]
    alone = race(lambda: answers(session, one), lambda: answers(session, one), bench.wish.rounds, calls=5)
    return {
        "schema": 1,
        "model": source.model,
        "run": source.run,
        "content": params_digest(source.values),
        "input": list(source.spec.input),
        "outputs": source.spec.outputs,
        "labels": list(source.labels),
        "preprocessing": source.preprocessing,
        "lineage": dict(source.lineage),
        "machine": f"{_processor()[:_MOST_NAME]}, {platform.machine()}",
        "parameters": sum(tensor.count for tensor in (*source.spec.trainable, *source.spec.frozen)),
        "left_float": left_of(bench.model),
        "calibration": 0 if source.chooses is None else len(source.chooses),
        "examples": whole.pop("examples"),
        "checked": len(source.checks),
        "float": {"bytes": len(plain), **whole, "latency_ms": alone.first_ms},
        "variants": [],
        "refused": [],
        "sensitivity": [],
        "golden": "",
    }


def _add_bundle(bench: Bench, nested: Mapping[int, bytes], report: dict[str, Any], files: dict[str, bytes]) -> None:
    name = f"{bench.profile}.bundle"
    try:
        data, need = bundled(bench.weights, nested, bench.profile)
    except BitfleetError as exc:
        _refuse(report, name, exc)
        return
    files[name] = data
    told = {"bundle": sha256(data).hexdigest(), "bundle_file": name, "bundle_bytes": len(data)}
    names = {f"{bench.profile}-{bits}": prefix for bits, prefix in need.items()}
    for entry in report["variants"]:
        if entry["name"] in names:
            entry |= {**told, "prefix": names[entry["name"]]}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    named = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(named, platform.processor() or "unknown processor")
