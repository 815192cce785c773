from __future__ import annotations

from dataclasses import replace

import pytest

from edge_agent.serving.accept import Floor, Floors, accept_manifest, load_floors, save_floors, stored_manifest
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
    floor = floors.keys[made.key]
    assert (floor.version, floor.time_s, floor.time_version) == (3, made.created_s, 3)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"fleet": "other"}, "E-FLEET"),
        ({"key": "0" * 16}, "E-MODEL-KEY"),
        ({"expires_s": NOW_S}, "E-MODEL-EXPIRED"),
        ({"golden_bytes": 1 << 26, "version": 9}, "E-MODEL-SIZE"),
        ({"input": ()}, "E-FRAME"),
        ({"created_s": NOW_S + 3600}, "E-FRAME"),
        ({"created_s": NOW_S + 7200}, "E-FRAME"),
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


def test_the_message_of_an_expired_one_says_by_what(publisher, made):
    late = replace(made, created_s=NOW_S + 7200, expires_s=NOW_S + 9000)
    _, floors = taken(publisher, late)
    with pytest.raises(BitfleetError) as caught:
        taken(publisher, replace(made, version=5), floors)
    assert caught.value.message == (
        "version 5 expired 2027-01-15 09:00 UTC, before the time floor 2027-01-15 10:00 UTC: version 3 of key"
        f" {made.key} was made then"
    )
    with pytest.raises(BitfleetError, match=r"E-MODEL-EXPIRED: .*and this device's clock says 2027-01-15 10:00 UTC"):
        taken(publisher, made, clock_s=NOW_S + 7200)


def test_a_stolen_key_does_not_lift_the_time_of_the_next(publisher, made, tmp_path):
    thief = Publisher(tmp_path, name="thief.key")
    keys, latest_s = (publisher.public, thief.public), 1 << 36
    high = replace(
        thief.manifest(9, {"float-32": file_bytes()}),
        key=key_id(thief.public),
        created_s=latest_s - 1,
        expires_s=latest_s,
    )
    _, floors = taken(thief, high, keys=keys)
    assert taken(publisher, made, floors, keys=keys)[0].version == 3
    assert (
        code_of(thief, replace(high, version=10, created_s=1, expires_s=NOW_S * 2), floors, keys=keys)
        == "E-MODEL-EXPIRED"
    )


def test_an_older_time_does_not_lower_the_floor(publisher, made):
    _, floors = taken(publisher, made)
    earlier = replace(made, version=4, created_s=made.created_s - 60)
    _, floors = taken(publisher, earlier, floors)
    floor = floors.keys[made.key]
    assert (floor.version, floor.time_s, floor.time_version) == (4, made.created_s, 3)


def test_a_clock_that_ran_ahead_is_not_remembered(publisher, made):
    assert code_of(publisher, made, clock_s=NOW_S + 1e8) == "E-MODEL-EXPIRED"
    assert taken(publisher, made, clock_s=NOW_S)[0] == made


def test_floors_outlive_the_process_and_damage_is_no_amnesty(tmp_path):
    floors = Floors({"k" * 16: Floor(7, "0" * 64, 99, 6)})
    save_floors(tmp_path, floors)
    assert load_floors(tmp_path) == floors
    half = '{"keys": {"k": {"version": 1}}}'
    for text in ("", "{", "[]", "{}", half, '{"versions": {"k": 3}, "time_s": 1}', '{"versions": {}}'):
        (tmp_path / "floors.json").write_text(text)
        with pytest.raises(BitfleetError, match=r"E-STATE.*delete it if"):
            load_floors(tmp_path)
    assert load_floors(tmp_path / "none") == Floors()


def test_floors_of_before_go_on_with_their_time_at_every_key(tmp_path):
    (tmp_path / "floors.json").write_text('{"time_s": 99, "versions": {"k": [7, "0"], "l": [2, "1"]}}')
    assert load_floors(tmp_path) == Floors({"k": Floor(7, "0", 99), "l": Floor(2, "1", 99)})


def test_a_stored_manifest_is_read_again_by_its_digest(publisher, made):
    data = publisher.signed(made)
    digest = publisher.keep(data)
    (publisher.folder / digest).write_bytes(data)
    assert stored_manifest(publisher.folder, digest) == made
    (publisher.folder / digest).write_bytes(data + b"x")
    for name in (digest, "0" * 64):
        with pytest.raises(BitfleetError, match="E-STATE"):
            stored_manifest(publisher.folder, name)
