"""Assemblies: pieces in any order give the file; what an earlier process left counts only if it is whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.bits import Bits
from wire.errors import WireError
from wire.messages.blob import digest_bytes
from wire.pieces import assembly
from wire.pieces.assembly import Assembly, make_folder, write_whole
from wire.pieces.chunks import Spans, cut_spans, decode_chunk, encode_chunk

WHOLE = Bits(1).words(30).tobytes()
DIGEST = digest_bytes(WHOLE)
PIECES = list(cut_spans([(0, len(WHOLE))], 37))


def piece(start: int, end: int, whole: bytes = WHOLE):
    return decode_chunk(encode_chunk(DIGEST, len(whole), start, whole[start:end]), len(whole))


def opened(folder) -> Assembly:
    return Assembly.open(folder, DIGEST, len(WHOLE))


@given(order=st.permutations(PIECES), twice=st.sampled_from(PIECES), stop=st.integers(0, len(PIECES)))
def test_any_order_and_a_restart_give_the_file(tmp_path_factory, order, twice, stop):
    folder = tmp_path_factory.mktemp("parts")
    for at, span in enumerate([*order[:stop], twice, *order[stop:]]):
        if at == stop:
            assembly = opened(folder)
            assert set(assembly.spans.missing()) == set(_gaps(order[:stop]))
        opened(folder).put(piece(*span))
    assembly = opened(folder)
    assert assembly.spans.complete and assembly.finish(folder / "whole")
    assert (folder / "whole").read_bytes() == WHOLE
    assert [path.name for path in folder.iterdir()] == ["whole"]


def _gaps(spans):
    held = Spans(len(WHOLE))
    for span in spans:
        held.add(*span)
    return held.missing()


def test_wrong_bytes_start_again_from_nothing(tmp_path):
    assembly = opened(tmp_path)
    for start, end in PIECES:
        assembly.put(piece(start, end, WHOLE if start else b"\xff" * len(WHOLE)))
    assert not assembly.finish(tmp_path / "whole")
    assert assembly.spans.missing() == ((0, len(WHOLE)),)
    assert list(tmp_path.iterdir()) == []


def test_another_total_is_refused(tmp_path):
    assembly = opened(tmp_path)
    with pytest.raises(WireError) as caught:
        assembly.put(decode_chunk(encode_chunk(DIGEST, len(WHOLE) + 1, 0, b"x"), 1 << 20))
    assert caught.value.code == "E-SIZE" and list(tmp_path.iterdir()) == []


def test_a_piece_that_is_there_is_not_noted_again(tmp_path):
    assembly = opened(tmp_path)
    assembly.put(piece(1, 40))
    size = assembly.notes.stat().st_size
    for _ in range(5):
        assembly.put(piece(1, 40))
        assembly.put(piece(3, 10))
    assert assembly.notes.stat().st_size == size


@pytest.mark.parametrize(
    "notes",
    [
        b"",
        b"0",
        b"0 ",
        b"0 x\n",
        b"\xff\xfe\x00",
        "0 ²\n".encode(),
        "٣ ٤\n".encode(),
        b"9" * 5000 + b" 1\n",
        b"5 5\n",
        b"7 3\n",
        b"-1 4\n",
        b"0 4 8\n",
        b"0 999999\n",
        b"0\t4\n",
        b"0 41\n",
    ],
)
def test_torn_notes_are_passed_over(tmp_path, notes):
    assembly = opened(tmp_path)
    assembly.put(piece(0, 40))
    assembly.notes.write_bytes(notes)
    assert opened(tmp_path).spans.held == []


def test_a_torn_line_costs_only_its_piece(tmp_path):
    assembly = opened(tmp_path)
    assembly.put(piece(37, 74))
    assembly.put(piece(0, 37))
    assembly.put(piece(80, 90))
    assembly.notes.write_bytes(assembly.notes.read_bytes()[:-3])
    again = opened(tmp_path)
    assert again.spans.held == [(0, 74)]
    again.put(piece(74, 111))  # its note joins the torn line, and is lost with it
    assert opened(tmp_path).spans.held == [(0, 74)]


def test_pieces_in_order_need_no_notes(tmp_path):
    for start, end in PIECES[:3]:
        opened(tmp_path).put(piece(start, end))
    assert [path.name for path in tmp_path.iterdir()] == [f"{DIGEST}.part"]
    assert opened(tmp_path).spans.held == [(0, PIECES[2][1])]


def test_a_piece_of_which_only_a_part_was_written_goes_on_there(tmp_path):
    assembly = opened(tmp_path)
    assembly.put(piece(0, 74))
    assembly.part.write_bytes(assembly.part.read_bytes()[:50])
    assert opened(tmp_path).spans.held == [(0, 50)]


def test_bytes_that_an_unnoted_gap_precedes_are_found_out(tmp_path):
    """A power cut may lose the notes and keep the bytes: then the size of the part promises too much."""
    assembly = opened(tmp_path)
    assembly.put(piece(40, len(WHOLE)))
    assembly.notes.unlink()
    again = opened(tmp_path)
    assert again.spans.complete and not again.finish(tmp_path / "whole")
    assert again.spans.missing() == ((0, len(WHOLE)),) and list(tmp_path.iterdir()) == []


def test_notes_without_bytes_and_too_many_bytes_are_dropped(tmp_path):
    for leftover, size in (("spans", 5), ("part", len(WHOLE) + 1), ("part", 0)):
        (tmp_path / f"{DIGEST}.{leftover}").write_bytes(b"0" * size)
        assert opened(tmp_path).spans.held == []
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("durable", [True, False])
def test_make_folder_syncs_the_folders_that_got_a_new_name(tmp_path, monkeypatch, durable):
    synced = []
    monkeypatch.setattr(assembly, "_sync_folder", synced.append)
    for _ in range(2):
        make_folder(tmp_path / "a" / "b", durable)
    assert (tmp_path / "a" / "b").is_dir()
    assert synced == ([tmp_path, tmp_path / "a"] if durable else [])


def test_write_whole_replaces(tmp_path):
    target = tmp_path / "file"
    write_whole(target, b"one")
    write_whole(target, b"two")
    assert target.read_bytes() == b"two" and list(tmp_path.iterdir()) == [target]
