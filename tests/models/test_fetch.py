"""Fetching: with stand-ins for the clients, and for real where a person asks for it with BITFLEET_FETCH=1."""

import gzip
import os
import pickle
import subprocess
import zipfile
from hashlib import sha256

import numpy as np
import pytest

from models import fetch as fetching
from models.data import load
from models.fetch import cache_dir, cached, fetch, fetch_command
from models.sources.foreign import read_idx, read_object_array
from wire.errors import ConfigError, DataError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BITFLEET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "_DEBIAN_FOLDER", tmp_path / "usr/share/none")
    return tmp_path / "cache"


def client(monkeypatch, returncode=0, makes=None):
    """Puts a stand-in in the place of apt-get, dpkg-deb and pip."""

    def run(command, cwd, **_):
        if makes:
            makes(command, cwd)
        return subprocess.CompletedProcess(command, returncode, "", "no route to host")

    monkeypatch.setattr(fetching.subprocess, "run", run)


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("BITFLEET_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("BITFLEET_CACHE")
    monkeypatch.setenv("HOME", "/somewhere")
    assert cache_dir().as_posix() == "/somewhere/.cache/bitfleet"


@pytest.mark.parametrize("name", ["fashion", "watch"])
def test_nothing_is_fetched_by_loading(cache, monkeypatch, name):
    client(monkeypatch, makes=lambda command, cwd: pytest.fail("a client was called"))
    with pytest.raises(DataError, match=f"bitfleet data {name}"):
        load(name)
    assert not cache.exists()


@pytest.mark.parametrize("name", ["fashion", "watch"])
def test_offline_and_without_a_client(cache, monkeypatch, name):
    client(monkeypatch, returncode=100)
    with pytest.raises(DataError, match="no route to host") as caught:
        fetch(name)
    assert str(cache) in caught.value.remedy
    monkeypatch.setenv("PATH", "")
    monkeypatch.undo()
    monkeypatch.setenv("BITFLEET_CACHE", str(cache))
    monkeypatch.setattr(fetching, "_DEBIAN_FOLDER", cache / "none")
    monkeypatch.setattr(fetching.sys, "executable", "/nonexistent/python")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DataError, match="not on this machine") as caught:
        fetch(name)
    assert caught.value.remedy
    assert list(cache.iterdir()) == [], "something was left in the cache"


def test_a_client_that_hangs(cache, monkeypatch):
    def run(command, **_):
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(fetching.subprocess, "run", run)
    with pytest.raises(DataError, match="took over"):
        fetch("watch")


def test_a_changed_wheel_is_not_read(cache, monkeypatch):
    def makes(command, cwd):
        with zipfile.ZipFile(cwd / "seglearn-1.2.5-py3-none-any.whl", "w") as archive:
            archive.writestr("seglearn/data/watch_dataset.npy", b"other bytes")

    client(monkeypatch, makes=makes)
    monkeypatch.setattr(fetching, "read_object_array", lambda *_: pytest.fail("read before it was verified"))
    with pytest.raises(DataError, match="SHA-256"):
        fetch("watch")
    with pytest.raises(DataError, match="not on this machine"):
        cached("watch")


def test_a_changed_debian_package_is_not_kept(cache, monkeypatch):
    client(monkeypatch, makes=lambda command, cwd: (cwd / "dataset-fashion-mnist_1_all.deb").touch())
    with pytest.raises(DataError, match="train-images"):
        fetch("fashion")
    assert list(cache.iterdir()) == []


def test_fashion_lands_in_the_cache(cache, monkeypatch):
    def makes(command, cwd):
        (cwd / "dataset-fashion-mnist_1_all.deb").touch()
        folder = cwd / "tree" / fetching._DEBIAN_FOLDER.relative_to("/")
        folder.mkdir(parents=True, exist_ok=True)
        for name in fetching.FASHION_SHA256:
            (folder / name).write_bytes(name.encode())

    client(monkeypatch, makes=makes)
    digests = {name: sha256(name.encode()).hexdigest() for name in fetching.FASHION_SHA256}
    monkeypatch.setattr(fetching, "FASHION_SHA256", digests)
    assert fetch("fashion") == cached("fashion") == cache / "fashion-mnist"
    assert {path.name for path in cache.rglob("*gz")} == set(digests)


def test_a_damaged_cache_is_seen_when_it_is_loaded(cache):
    (cache / "fashion-mnist").mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be read"):
        load("fashion")
    (cache / "fashion-mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"damaged")
    with pytest.raises(DataError, match="SHA-256"):
        load("fashion")
    np.savez(cache / "watch.npz", x=np.zeros((3, 6), np.float32))
    with pytest.raises(DataError, match="SHA-256"):
        load("watch")
    (cache / "watch.npz").write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be read"):
        load("watch")


def test_the_command_reports_each(cache, monkeypatch, capsys):
    client(monkeypatch, returncode=1)
    (cache / "fashion-mnist").mkdir(parents=True)
    assert fetch_command(["fashion"]) == 0
    assert fetch_command([]) == 1
    assert fetch_command(["nothing"]) == 1
    said = capsys.readouterr()
    assert said.out.count("fashion: already here") == 2
    assert "watch: E-DATA" in said.err
    assert "nothing: E-CONFIG" in said.err
    with pytest.raises(ConfigError, match="known: fashion"):
        fetch("nothing")


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("BITFLEET_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(DataError, match="BITFLEET_CACHE"):
        fetch("watch")


HEAD = (
    np.lib.format.magic(1, 0) + b"\x46\0" + b"{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(69) + b"\n"
)


@pytest.mark.parametrize(
    "code",
    [
        b"\x80\x02cos\nsystem\nX\x04\0\0\0truetR.",
        b"\x80\x02cbuiltins\neval\nX\x01\0\0\01\x85R.",
        b"\x80\x02cnumpy\nload\n)R.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02]",
        b"\x80\x02K\x01.",
        b"\x80\x02t.",
        b"\x80\x02h\x05.",
        b"\x80\x02K\x01K\x02b.",
        b"\xff",
        b"",
    ],
)
def test_an_object_array_cannot_name_code(code, monkeypatch):
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("code was run"))
    with pytest.raises(DataError, match="a test"):
        read_object_array(HEAD + code, "a test")


def test_an_object_array_as_numpy_writes_it():
    """In the protocol that the wheel's file was written in, from arrays in both orders."""
    held = np.array(
        {"X": [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))], "n": ["a", 1]}
    )
    # NumPy 2 calls the module numpy._core; the file in the wheel is from NumPy 1.
    code = pickle.dumps(held, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    found = read_object_array(HEAD + code, "a test")
    assert found["n"] == ["a", 1]
    assert [one.tolist() for one in found["X"]] == [[[0, 1, 2], [3, 4, 5]]] * 2


@pytest.mark.parametrize("data", [b"", b"not gzip", b"\x1f\x8b\x08\0"])
def test_damaged_idx(data):
    with pytest.raises(DataError, match="a test"):
        read_idx(data, "a test")


@pytest.mark.parametrize(
    "head", [b"", b"\0\0\x0d\x01\0\0\0\x01a", b"\0\0\x08\x01\0\0\0\x02a", b"\0\0\x08\x02\0\0\0\x01a"]
)
def test_gzip_that_is_not_idx(head):
    with pytest.raises(DataError, match="not an IDX file"):
        read_idx(gzip.compress(head), "a test")


@pytest.mark.skipif(os.environ.get("BITFLEET_FETCH") != "1", reason="downloads 42 MB: set BITFLEET_FETCH=1")
@pytest.mark.parametrize("name", ["fashion", "watch"])
def test_for_real(tmp_path, monkeypatch, name):
    monkeypatch.setenv("BITFLEET_CACHE", str(tmp_path))
    fetch(name)
    assert len(load(name, "test")) == {"fashion": 10_000, "watch": 770}[name]
