from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.serving.accept import Floors, accept_manifest, load_floors, save_floors, stored_manifest
from tests.edge_agent.boards import config
from tests.edge_agent.serving.stage.files import NOW_S, Publisher, file_bytes
from wire.errors import BitfleetError
from wire.messages.manifest import MANIFEST_BYTES, key_id


@pytest.fixture
def publisher(tmp_path):
    return Publisher(tmp_path)


def taken(publisher, manifest, floors=None, clock_s=NOW_S, data=None, keys=None):
    known = (publisher.public,) if keys is None else keys
    device = config(publisher.folder / "state", model_keys=known)
    return accept_manifest(data or publisher.signed(manifest), device, floors or Floors(), clock_s)


def code_of(*args, **words) -> str:
    with pytest.raises(BitfleetError) as caught:
        taken(*args, **words)
    return caught.value.code


@pytest.fixture
def made(publisher):
    return publisher.manifest(3, {"float-32": file_bytes()})


def test_a_right_manifest_raises_the_floors(publisher, made):
    manifest, floors = taken(publisher, made)
    assert manifest == made
    assert floors.versions[made.key][0] == 3
    assert floors.time_s == made.created_s


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"fleet": "other"}, "E-FLEET"),
        ({"key": "0" * 16}, "E-MODEL-KEY"),
        ({"expires_s": NOW_S}, "E-MODEL-EXPIRED"),
        ({"golden_bytes": 1 << 26, "version": 9}, "E-MODEL-SIZE"),
        ({"input": ()}, "E-FRAME"),
    ],
)
def test_each_fault_has_its_code(publisher, made, change, code):
    assert code_of(publisher, replace(made, **change)) == code


def test_bytes_that_are_no_manifest(publisher, made):
    data = publisher.signed(made)
    assert code_of(publisher, made, data=data[:-1]) == "E-FRAME"
    assert code_of(publisher, made, data=data + b"x" * MANIFEST_BYTES) == "E-MODEL-SIZE"
    assert code_of(publisher, made, data=data[:50] + bytes([data[50] ^ 1]) + data[51:]) == "E-CRC"


def test_no_key_is_a_refusal_that_says_what_to_do(publisher, made):
    with pytest.raises(BitfleetError, match=r"E-MODEL-KEY.*none.*set model_keys.*bitfleet keys"):
        taken(publisher, made, keys=())


def test_another_key_under_our_name_is_seen(publisher, made, tmp_path):
    thief = Publisher(tmp_path, name="thief.key")
    assert code_of(publisher, made, data=thief.signed(made)) == "E-SIGNATURE"
    assert code_of(publisher, replace(made, key=key_id(thief.public)), data=None) == "E-MODEL-KEY"


def test_an_unsigned_manifest_is_seen(publisher, made):
    from dataclasses import asdict

    from wire.frame import Kind, encode_frame

    assert code_of(publisher, made, data=encode_frame(Kind.MANIFEST, asdict(made))) == "E-SIGNATURE"


def test_an_older_one_is_refused_although_it_is_signed(publisher, made):
    _, floors = taken(publisher, made)
    assert code_of(publisher, replace(made, version=2), floors) == "E-VERSION-FLOOR"
    assert taken(publisher, made, floors)[1] == floors
    assert code_of(publisher, replace(made, content="1" * 64), floors) == "E-VERSION-FLOOR"
    assert taken(publisher, replace(made, version=4), floors)[0].version == 4


def test_a_stolen_key_does_not_lift_the_floor_of_the_next(publisher, made, tmp_path):
    thief = Publisher(tmp_path, name="thief.key")
    keys = (publisher.public, thief.public)
    high = replace(thief.manifest(1 << 50, {"float-32": file_bytes()}), key=key_id(thief.public))
    _, floors = taken(thief, high, keys=keys)
    assert taken(publisher, made, floors, keys=keys)[0].version == 3


def test_a_clock_at_1970_does_not_bring_expired_models_back(publisher, made):
    late = replace(made, created_s=NOW_S + 7200, expires_s=NOW_S + 9000, version=4)
    _, floors = taken(publisher, late, clock_s=0)
    assert code_of(publisher, replace(made, version=5), floors, clock_s=0) == "E-MODEL-EXPIRED"


def test_a_clock_that_ran_ahead_is_not_remembered(publisher, made):
    assert code_of(publisher, made, clock_s=NOW_S + 1e8) == "E-MODEL-EXPIRED"
    assert taken(publisher, made, clock_s=NOW_S)[0] == made


def test_floors_outlive_the_process_and_damage_is_no_amnesty(tmp_path):
    floors = Floors({"k" * 16: (7, "0" * 64)}, 99)
    save_floors(tmp_path, floors)
    assert load_floors(tmp_path) == floors
    for text in ("", "{", "[]", '{"versions": {"k": 3}, "time_s": 1}', '{"versions": {}}'):
        (tmp_path / "floors.json").write_text(text)
        with pytest.raises(BitfleetError, match=r"E-STATE.*delete it if"):
            load_floors(tmp_path)
    assert load_floors(tmp_path / "none") == Floors()


def test_a_stored_manifest_is_read_again_by_its_digest(publisher, made):
    data = publisher.signed(made)
    digest = publisher.keep(data)
    (publisher.folder / digest).write_bytes(data)
    assert stored_manifest(publisher.folder, digest) == made
    (publisher.folder / digest).write_bytes(data + b"x")
    for name in (digest, "0" * 64):
        with pytest.raises(BitfleetError, match="E-STATE"):
            stored_manifest(publisher.folder, name)
