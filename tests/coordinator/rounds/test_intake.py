from __future__ import annotations

from hashlib import sha256

import pytest

from coordinator.rounds import intake as module
from coordinator.rounds.intake import Intake
from wire.errors import WireError
from wire.messages.reports import Ask
from wire.pieces.chunks import Chunk

ONE, TWO = bytes(range(200)), bytes(range(100, 250))


def digest(data):
    return sha256(data).hexdigest()


def piece(data, start, end, total=None, name=None):
    return Chunk(name or digest(data), total or len(data), start, memoryview(data)[start:end])


def ask(data):
    return Ask("update", digest(data), "run-1", 0, len(data))


def test_a_whole_update_is_handed_over_as_a_file(tmp_path):
    intake = Intake(tmp_path)
    assert intake.take("a", piece(ONE, 100, 200)) is None
    whole = intake.take("a", piece(ONE, 0, 100))
    assert whole.read_bytes() == ONE
    assert intake.parts == {}
    assert list(tmp_path.iterdir()) == [whole]


def test_devices_do_not_disturb_each_other_with_the_same_bytes(tmp_path):
    intake = Intake(tmp_path)
    assert intake.take("a", piece(ONE, 0, 100)) is None
    assert intake.take("b", piece(ONE, 100, 200)) is None
    assert intake.missing("a", ask(ONE)) == ((100, 200),)
    assert intake.missing("b", ask(ONE)) == ((0, 100),)
    assert intake.take("a", piece(ONE, 100, 200)).read_bytes() == ONE


def test_what_is_missing_survives_a_restart(tmp_path):
    Intake(tmp_path).take("a", piece(ONE, 20, 120))
    again = Intake(tmp_path)
    assert again.missing("a", ask(ONE)) == ((0, 20), (120, 200))
    again.take("a", piece(ONE, 0, 20))
    assert again.take("a", piece(ONE, 120, 200)).read_bytes() == ONE


def test_what_an_earlier_process_left_goes_with_another_update_or_with_its_round(tmp_path):
    before = Intake(tmp_path)
    for device in ("a", "b", "c"):
        before.take(device, piece(ONE, 20, 120))
    (tmp_path / f"b.{digest(TWO)}.whole").write_bytes(TWO)
    again = Intake(tmp_path)
    assert again.gathers("a") and not again.gathers("d")
    again.take("a", piece(TWO, 0, 10))
    again.keep_only(lambda device: device != "b")
    assert {path.name for path in tmp_path.iterdir()} == {
        f"a.{digest(TWO)}.part",
        f"c.{digest(ONE)}.part",
        f"c.{digest(ONE)}.spans",
    }
    again.forget("c")
    again.keep_only(lambda device: False)
    assert not list(tmp_path.iterdir())


def test_of_an_unknown_update_everything_is_missing(tmp_path):
    assert Intake(tmp_path).missing("a", ask(ONE)) == ((0, 200),)


def test_another_update_takes_the_place_of_an_unfinished_one(tmp_path):
    intake = Intake(tmp_path)
    intake.take("a", piece(ONE, 0, 100))
    intake.take("a", piece(TWO, 0, 10))
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{digest(TWO)}.part"]
    assert intake.missing("a", ask(ONE)) == ((0, 200),)


def test_wrong_bytes_are_dropped_and_start_again(tmp_path):
    intake = Intake(tmp_path)
    assert intake.take("a", piece(ONE, 0, 200, name=digest(TWO))) is None
    assert not list(tmp_path.iterdir())
    assert intake.take("a", piece(ONE, 0, 200)).read_bytes() == ONE


def test_the_same_piece_many_times_takes_no_more_room(tmp_path):
    intake = Intake(tmp_path)
    for _ in range(100):
        intake.take("a", piece(ONE, 50, 100))
    notes = next(tmp_path.glob("*.spans"))
    assert len(notes.read_text().splitlines()) == 1


def test_gaps_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_RANGES", 10)
    intake = Intake(tmp_path)
    with pytest.raises(WireError, match="E-SIZE"):
        for at in range(0, 200, 2):
            intake.take("a", piece(ONE, at, at + 1))
    assert intake.missing("a", ask(ONE)) == ((0, 200),)
