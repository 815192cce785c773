"""The same exported files on the oldest and the newest ONNX Runtime: do they answer the same?

Even widths, learned centres, widths layer by layer, files cut from bundles, and Linear layers on series: all must be
read by the oldest. Those of `--packing native` go to the first runtime that reads them, and to the newest: both must
answer as the newest does for the same codes in bit planes. Each runtime gets an environment of its own with the NumPy
that it was made for. Needs pip's index.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.result import Figure, Requirement, Result, at_least, at_most
from benchmarks.runtimes.environment import answered
from benchmarks.runtimes.files import NATIVE, NETS, PLAIN, export_all, export_tiny
from edge_agent.serving.policy import release

__all__ = ["export_tiny", "run"]

_OLDEST = ("1.16.3", "1.17.3", "1.19.2", "1.20.1", "1.22.1")
_PROFILES = ("int8", "float")
_MOST = {"int8": 0.0, "float": 1e-5}
_FILES = 2 * (7 + 6 + 1) * len(NETS)  # widths and centres, widths of a bundle, one of mixed widths


def run(options: Sequence[str]) -> Result:
    """Exports small nets of every architecture in every form and has all runtimes answer."""
    parser = argparse.ArgumentParser(prog="scripts/bench runtimes")
    parser.add_argument("--oldest", default="", help="this version and no other")
    asked = parser.parse_args(options)
    with tempfile.TemporaryDirectory(prefix="bitfleet-runtimes-") as name:
        work, files = Path(name), Path(name) / "files"
        native = _readable()
        entries = export_all(files, native)
        old = answered(work, files, "old", PLAIN, [asked.oldest] if asked.oldest else _OLDEST)
        new = answered(work, files, "new", [*PLAIN, *(f"native-{bits}" for bits in native)], [""])
        first = {bits: answered(work, files, f"first-{bits}", [f"native-{bits}"], NATIVE[bits]) for bits in native}
        worst = {(form, profile): _worst(files, form, profile) for form in PLAIN for profile in _PROFILES}
        other = {bits: _from_planes(files, bits) for bits in native}
        count = len(list(files.glob("*/*/*.onnx.old.npy")))
    by_profile = {profile: max(worst[form, profile] for form in PLAIN) for profile in _PROFILES}
    figures: dict[str, Figure] = {
        "oldest_runtime": old[0], "oldest_numpy": old[1], "newest_runtime": new[0], "newest_numpy": new[1],
        "files": count, "files_of_several_widths": sum(len(set(one["widths"].values())) > 1 for one in entries),
        "int8_max_difference": by_profile["int8"], "float_max_difference": by_profile["float"],
    }  # fmt: skip
    figures |= {f"{form}_{profile}_max_difference": value for (form, profile), value in worst.items()}
    for bits, (version, _) in first.items():
        figures |= {f"native_{bits}_first_runtime": version, f"native_{bits}_max_difference_from_planes": other[bits]}
    limits: list[Requirement] = [at_most(f"{p} max difference", _MOST[p], by_profile[p]) for p in _PROFILES]
    limits += [at_most(f"native {bits} bits, max difference from planes", 0, worst) for bits, worst in other.items()]
    limits.append(at_least("files compared", _FILES, count))
    return Result(figures, tuple(limits))


def _readable() -> tuple[int, ...]:
    """Returns the widths of ONNX's own types that this environment's runtime reads, as the gate must open them."""
    import onnxruntime

    have = release(onnxruntime.__version__)
    return tuple(bits for bits, (first, *_) in NATIVE.items() if have >= release(first))


def _worst(files: Path, form: str, profile: str) -> float:
    """Returns how far the oldest and the newest runtime lie apart at most."""
    return max(_apart(old, _by(old, "old", "new")) for old in files.glob(f"{form}/*/{profile}-*.old.npy"))


def _from_planes(files: Path, bits: int) -> float:
    """Returns how far both runtimes' answers to native files lie from the newest one's to bit planes, at most."""
    here = files / f"native-{bits}"
    mine = [*here.glob("*/*.new.npy"), *here.glob(f"*/*.first-{bits}.npy")]
    planes = {path: files / "even" / path.parent.name / f"{path.name.split('.onnx')[0]}.onnx.new.npy" for path in mine}
    return max(_apart(path, plane) for path, plane in planes.items())


def _by(path: Path, name: str, other: str) -> Path:
    return path.with_name(path.name.replace(f".{name}.npy", f".{other}.npy"))


def _apart(one: Path, other: Path) -> float:
    return float(np.abs(np.load(one) - np.load(other)).max())
