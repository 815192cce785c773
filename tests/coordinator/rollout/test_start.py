"""Publishing and opening a roll-out: versions that only grow, keys, content that comes back, and every refusal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.home import open_home
from coordinator.rollout import start as start_module
from coordinator.rollout.book import RolloutBook
from coordinator.rollout.publish import load_manifest
from coordinator.rollout.start import Request, start_rollout
from coordinator.state.registry import Registry
from tests.coordinator.rollout.boards import FLEET, NOW_S
from tests.coordinator.rollout.exports import edit, make_export
from wire.errors import ConfigError, StateError
from wire.frame import Kind, decode_frame
from wire.messages.blob import digest_bytes
from wire.messages.manifest import key_id
from wire.messages.reports import DeviceState
from wire.sign import check_signature, make_key, public_key


@pytest.fixture
def home(tmp_path):
    with open_home(tmp_path / "home", durable=False) as home:
        yield home


@pytest.fixture
def folder(tmp_path):
    return make_export(tmp_path / "export", bundle=True)


def start(home, folder=None, **more):
    """Opens a roll-out to two devices, ends it at once, and returns its manifest."""
    name = start_rollout(home, Request(**{"fleet": FLEET, "folder": folder, "devices": ("a", "b"), **more}), NOW_S)
    book = RolloutBook(home.database)
    with home.database.change():
        home.database.write("UPDATE rollouts SET status = 'aborted' WHERE rollout = ?", name)
    return load_manifest(home.shelf, book.published(book.load(name).version))


def test_a_manifest_says_what_the_export_says(home, folder):
    manifest = start(home, folder, days=30)
    assert (manifest.fleet, manifest.model, manifest.version, manifest.parent) == (FLEET, "digits", 1, 0)
    assert (manifest.created_s, manifest.expires_s) == (NOW_S, NOW_S + 30 * 86400)
    assert manifest.lineage == {"run": "run-1", "rounds": 10, "devices": 4, "epsilon": None}
    assert [(v.name, v.bits, v.size, v.measured.accuracy) for v in manifest.variants][1] == ("int8-4", 4.0, 1600, 0.9)
    shelf = {path.name: path.read_bytes() for path in home.shelf.iterdir()}
    assert all(digest_bytes(data) == name for name, data in shelf.items())
    assert len(shelf) == 6  # manifest, golden, bundle, three variants
    assert manifest.golden in shelf and manifest.variants[1].bundle in shelf


def test_it_goes_to_the_devices_of_its_own_fleet_only(home, folder):
    for fleet, device in ((FLEET, "mine"), ("other", "theirs")):
        registry = Registry(home.database, fleet)
        registry.heard_state(device, DeviceState("ready", 1))
        with home.database.change():
            registry.save()
    name = start_rollout(home, Request(FLEET, folder), NOW_S)
    assert [member.device for member in RolloutBook(home.database).load(name).members] == ["mine"]
    with home.database.change():
        home.database.write("UPDATE rollouts SET status = 'aborted'")
    with pytest.raises(StateError, match="no devices of fleet 'third'"):
        start_rollout(home, Request("third", folder), NOW_S)


def test_it_is_signed_with_a_key_of_its_own(home, folder):
    manifest = start(home, folder)
    public = public_key(home.model_key())
    assert public != home.public_key
    assert manifest.key == key_id(public)
    data = (home.shelf / RolloutBook(home.database).published(1).digest).read_bytes()
    check_signature(decode_frame(data, Kind.MANIFEST), public)
    assert (home.folder / "models.key").stat().st_mode & 0o777 == 0o600


def test_or_with_a_key_that_is_kept_elsewhere(home, folder, tmp_path):
    make_key(tmp_path / "offline.key")
    assert start(home, folder, key=tmp_path / "offline.key").key == key_id(public_key(tmp_path / "offline.key"))
    assert not (home.folder / "models.key").exists()


def test_versions_only_grow(home, folder):
    assert [start(home, folder).version for _ in range(3)] == [1, 2, 3]
    assert start(home, folder, least_version=10).version == 10
    assert (start(home, folder, least_version=4).version, start(home, folder).parent) == (11, 11)


def test_a_clock_that_was_ahead_once_does_not_end_a_fleet(home, folder, monkeypatch):
    monkeypatch.setattr("tests.coordinator.rollout.test_start.NOW_S", NOW_S + 400 * 86400)
    ahead = start(home, folder)
    monkeypatch.undo()
    after = start(home, folder, days=30)
    assert (after.created_s, after.expires_s) == (ahead.created_s, ahead.created_s + 30 * 86400)
    other = Request(fleet="other", folder=folder, devices=("a",))
    name = start_rollout(home, other, NOW_S)
    book = RolloutBook(home.database)
    assert load_manifest(home.shelf, book.published(book.load(name).version)).created_s == NOW_S


@pytest.mark.parametrize("field, value", [("model", "faces"), ("input", (1, 8, 9)), ("outputs", 7)])
def test_another_model_than_the_last_one_must_be_meant(home, folder, field, value, monkeypatch):
    start(home, folder)
    read = start_module.load_manifest
    monkeypatch.setattr(start_module, "load_manifest", lambda *where: replace(read(*where), **{field: value}))
    with pytest.raises(StateError, match=f"version 1 has {field} .* applications would fail.*--replace-model"):
        start(home, folder)
    assert start(home, folder, replace_model=True).version == 2


def test_a_last_model_that_cannot_be_read_is_in_nobody_s_way(home, folder):
    start(home, folder)
    (home.shelf / RolloutBook(home.database).published(1).digest).unlink()
    assert start(home, folder).version == 2


def test_going_back_is_a_new_version_of_older_content(home, folder, tmp_path):
    first = start(home, folder)
    second = start(home, make_export(tmp_path / "other", seed=2))
    back = start(home, content=1)
    assert (back.version, back.parent, back.content) == (3, 2, first.content)
    assert (back.variants, back.golden) == (first.variants, first.golden)
    assert second.content != first.content
    assert len(list(home.shelf.iterdir())) == 3 + 5 + 4  # one copy of everything, three manifests


def test_a_blob_that_was_damaged_is_mended_by_the_export_and_refused_without(home, folder):
    manifest = start(home, folder)
    path = home.shelf / manifest.variants[0].digest
    path.write_bytes(b"rotten")
    with pytest.raises(StateError, match="holds other bytes"):
        start(home, content=1)
    start(home, folder)
    assert digest_bytes(path.read_bytes()) == path.name
    path.unlink()
    with pytest.raises(StateError, match="cannot be read"):
        start(home, content=1)
    manifest_path = home.shelf / RolloutBook(home.database).published(1).digest
    manifest_path.write_bytes(manifest_path.read_bytes()[:-1])
    with pytest.raises(StateError, match="other bytes than its name"):
        start(home, content=1)


def test_what_devices_would_refuse_is_not_published(home, folder):
    edit(folder, "lineage", {"notes": "x" * 300_000})
    with pytest.raises(StateError, match=r"the manifest: header of"):
        start(home, folder)
    assert RolloutBook(home.database).versions() == []


WRONG = [
    ({}, ConfigError, "EXPORT_DIR or --content"),
    ({"content": 1, "folder": "x"}, ConfigError, "EXPORT_DIR or --content"),
    ({"content": 7}, StateError, "no version 7"),
    ({"folder": "none"}, StateError, "report.json"),
    ({"folder": "x", "devices": ("A",)}, ConfigError, "'A'"),
    ({"folder": "x", "key": Path("/none/key")}, ConfigError, "/none/key cannot be read"),
    ({"folder": "x", "canary": "c"}, ConfigError, "none of the devices"),
    ({"folder": "x", "days": 0}, ConfigError, "--days"),
    ({"folder": "x", "stage_s": 0.0}, ConfigError, "--stage-s"),
    ({"folder": "x", "stage_s": float("nan")}, ConfigError, "--stage-s"),
    ({"folder": "x", "least_version": 0}, ConfigError, "--least-version"),
    ({"folder": "x", "without": ("slow",)}, ConfigError, "slow"),
    ({"folder": "x", "fleet": "A/B"}, ConfigError, "fleet"),
    ({"folder": "x", "devices": ()}, StateError, "knows no devices"),
]


@pytest.mark.parametrize(("request_", "kind", "said"), WRONG)
def test_refusals_leave_nothing_behind(home, folder, tmp_path, request_, kind, said):
    place = {"x": folder, "none": tmp_path / "none"}.get(request_.get("folder"))
    with pytest.raises(kind, match=said):
        start(home, **{**request_, "folder": place})
    book = RolloutBook(home.database)
    assert (book.versions(), book.unfinished()) == ([], None)


def test_one_roll_out_at_a_time(home, folder):
    request = Request(FLEET, folder, devices=("a",))
    name = start_rollout(home, request, NOW_S)
    with pytest.raises(StateError, match=f"{name!r} is not over"):
        start_rollout(home, request, NOW_S)


def test_devices_named_twice_count_once_and_keep_their_order(home, folder):
    name = start_rollout(home, Request(FLEET, folder, devices=("c", "a", "c", "b"), canary="b"), NOW_S)
    assert [member.device for member in RolloutBook(home.database).load(name).members] == ["b", "c", "a"]
