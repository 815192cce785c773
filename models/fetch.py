"""Brings the datasets that are not bundled to this machine, through the clients of the packages that hold them.

`fashion`: Debian's package dataset-fashion-mnist, by apt-get. `watch`: the wheel of seglearn, by pip. What arrives is
compared with the hashes below before anything reads it, and lands in the cache in one step. Nothing is fetched unless
`fetch` is called: `cached` only looks.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

import numpy as np

from models.plugins import nearest
from models.sources.foreign import read_object_array
from wire.errors import BitfleetError, ConfigError, DataError

__all__ = [
    "FASHION_SHA256",
    "WATCH_ARRAYS",
    "WATCH_ARRAYS_SHA256",
    "WATCH_SHA256",
    "cache_dir",
    "cached",
    "fetch",
    "fetch_command",
    "verify",
]

FASHION_SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
WATCH_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"
"""Of the file in the wheel, before it is read."""

WATCH_ARRAYS = ("x", "length", "label", "subject", "side")
WATCH_ARRAYS_SHA256 = "987de8af65901991f6d4ba9f5ca79a0256253aee182977451f860dca67cb8922"
"""Of the bytes of these arrays in watch.npz, end to end: the file around them may differ between NumPy versions."""

_DEBIAN = "dataset-fashion-mnist"
_DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_WHEEL = "seglearn==1.2.5"
_WHEEL_MEMBER = "seglearn/data/watch_dataset.npy"
_CLIENT_LIMIT_S = 900


def cache_dir() -> Path:
    """Returns the folder that fetched data are kept in: $BITFLEET_CACHE, or ~/.cache/bitfleet."""
    chosen = os.environ.get("BITFLEET_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "bitfleet"


def cached(name: str) -> Path:
    """Returns where a fetched dataset lies; raises DataError if it is not on this machine."""
    found = _found(name)
    if found is None:
        raise DataError(f"dataset {name!r} is not on this machine", remedy=f"run `bitfleet data {name}`")
    return found


def fetch(name: str) -> Path:
    """Returns where a dataset lies, after bringing it to this machine if it was not there."""
    found = _found(name)
    if found is not None:
        return found
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache_dir()) as work:
            _FETCHERS[name](Path(work))
    except OSError as exc:
        raise DataError(f"{cache_dir()}: {exc}", remedy="free space there, or set BITFLEET_CACHE") from exc
    return cached(name)


def fetch_command(names: Iterable[str]) -> int:
    """Fetches the named datasets (all, if none is named), prints a line for each, returns the exit status."""
    return max([_fetched(name) for name in tuple(names) or tuple(_FETCHERS)])


def _fetched(name: str) -> int:
    try:
        there = _found(name)
        print(f"{name}: {'already here' if there else 'fetched'}, {there or fetch(name)}")
    except BitfleetError as exc:
        print(f"{name}: {exc}", file=sys.stderr)
        return 1
    return 0


def _found(name: str) -> Path | None:
    if name not in _FETCHERS:
        raise ConfigError(f"no dataset {name!r} to fetch", remedy=nearest(name, _FETCHERS))
    places = (_DEBIAN_FOLDER, _fashion_folder()) if name == "fashion" else (_watch_file(),)
    return next((place for place in places if place.exists()), None)


def _fashion_folder() -> Path:
    return cache_dir() / "fashion-mnist"


def _watch_file() -> Path:
    return cache_dir() / "watch.npz"


def _fashion(work: Path) -> None:
    copy = f"copy {_DEBIAN_FOLDER} from a machine that has it to {_fashion_folder()}"
    advice = f"install the package {_DEBIAN}, or {copy}"
    _call(["apt-get", "download", _DEBIAN], work, f"run `apt-get update` as root first, or {advice}")
    package = _only(work, f"{_DEBIAN}_*.deb", advice)
    _call(["dpkg-deb", "-x", package.name, "tree"], work, advice)
    ready = work / "ready"
    ready.mkdir()
    for file, digest in FASHION_SHA256.items():
        source = work / "tree" / _DEBIAN_FOLDER.relative_to("/") / file
        verify(source.read_bytes() if source.exists() else b"", digest, f"{file} in {package.name}")
        shutil.copyfile(source, ready / file)
    if not _fashion_folder().exists():
        ready.rename(_fashion_folder())


def _watch(work: Path) -> None:
    copy = f"copy watch.npz from a machine that has it to {_watch_file()}"
    advice = f"check that `python -m pip download` works here, or {copy}"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    _call([*pip, "--no-deps", "--only-binary", ":all:", "--dest", ".", _WHEEL], work, advice)
    wheel = _only(work, "seglearn-*.whl", advice)
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(_WHEEL_MEMBER)
    except (zipfile.BadZipFile, KeyError) as exc:
        raise DataError(f"{wheel.name} has no readable {_WHEEL_MEMBER}: {exc}", remedy=advice) from exc
    verify(data, WATCH_SHA256, f"{_WHEEL_MEMBER} in {wheel.name}")
    _keep_watch(data, work / "ready.npz", wheel.name)


def _keep_watch(data: bytes, ready: Path, place: str) -> None:
    """Writes the recordings end to end: x (steps, 6), and for each recording its length, label, subject and side."""
    held = read_object_array(data, place)
    np.savez(
        ready,
        x=np.concatenate(held["X"]).astype(np.float32),
        length=np.array([len(one) for one in held["X"]], dtype=np.int64),
        label=held["y"].astype(np.int64),
        subject=held["subject"].astype(np.int64),
        side=held["side"].astype(np.int64),
    )
    ready.replace(_watch_file())


_FETCHERS = {"fashion": _fashion, "watch": _watch}


def _call(command: list[str], work: Path, remedy: str) -> None:
    try:
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, timeout=_CLIENT_LIMIT_S, check=False)
    except FileNotFoundError as exc:
        raise DataError(f"{command[0]} is not on this machine", remedy=remedy) from exc
    except subprocess.TimeoutExpired as exc:
        raise DataError(f"{command[0]} took over {_CLIENT_LIMIT_S} s", remedy=remedy) from exc
    if done.returncode:
        last = (done.stderr or done.stdout).strip()[-300:]
        raise DataError(f"`{' '.join(command)}` ended with {done.returncode}: {last}", remedy=remedy)


def _only(folder: Path, pattern: str, remedy: str) -> Path:
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise DataError(f"the download left {len(files)} files {pattern}, expected 1", remedy=remedy)
    return files[0]


def verify(data: bytes, digest: str, place: str) -> None:
    """Raises DataError unless `digest` is the SHA-256 of `data`."""
    found = sha256(data).hexdigest()
    if found != digest:
        raise DataError(
            f"{place} has SHA-256 {found}, expected {digest}",
            remedy="the package has changed or the download is damaged: try again, and report it if it stays so",
        )
