from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.library import Library
from wire.pieces.chunks import HEADER_BYTES, decode_chunk

DATA = bytes(range(256)) * 20  # 5120 bytes
DIGEST = sha256(DATA).hexdigest()
OTHER = sha256(b"other").hexdigest()


@pytest.fixture
def library(tmp_path):
    library = Library(tmp_path, payload_bytes=1000 + HEADER_BYTES)
    library.put(DIGEST, DATA)
    library.put(OTHER, b"other")
    return library


def pieces(library, now_s):
    library.gather(now_s)
    found = []
    while piece := library.next_piece():
        chunk = decode_chunk(piece.payload, 1 << 20)
        assert (chunk.digest, bytes(chunk.data)) == (
            piece.digest, (DATA if piece.digest == DIGEST else b"other")[chunk.offset : chunk.offset + len(chunk.data)]
        )  # fmt: skip
        found.append((piece.digest, chunk.offset, chunk.offset + len(chunk.data), piece.askers))
    return found


def test_a_blob_is_cut_into_pieces_that_fit(library):
    assert library.ask(DIGEST, ((0, 5120),), "a", 0.0)
    spans = [(start, end) for _, start, end, _ in pieces(library, 1.0)]
    assert spans == [(0, 1000), (1000, 2000), (2000, 3000), (3000, 4000), (4000, 5000), (5000, 5120)]


def test_no_piece_is_larger_than_a_quarter_of_a_mebibyte(tmp_path):
    library = Library(tmp_path, payload_bytes=1 << 20)
    data = bytes(600_000)
    library.put(OTHER, data)
    library.ask(OTHER, ((0, len(data)),), "a", 0.0)
    library.gather(1.0)
    assert len(library.next_piece().payload) == 256 * 1024 + HEADER_BYTES


def test_questions_that_come_together_are_answered_by_one_copy(library):
    assert library.ask(DIGEST, ((0, 1000),), "b", 0.0)
    assert library.ask(DIGEST, ((500, 2000),), "a", 0.009)
    assert library.due_s(0.009) == pytest.approx(0.001)
    assert pieces(library, 0.0099) == []
    assert pieces(library, 0.01) == [(DIGEST, 0, 1000, ("a", "b")), (DIGEST, 1000, 2000, ("a", "b"))]
    assert library.due_s(0.01) is None


def test_a_question_that_comes_later_gets_a_copy_of_its_own(library):
    library.ask(DIGEST, ((0, 1000),), "a", 0.0)
    first = pieces(library, 0.02)
    library.ask(DIGEST, ((0, 1000),), "b", 0.02)
    assert (first, pieces(library, 0.04)) == ([(DIGEST, 0, 1000, ("a",))], [(DIGEST, 0, 1000, ("b",))])


def test_what_is_due_is_not_made_due_again(library):
    library.ask(DIGEST, ((0, 3000),), "a", 0.0)
    library.gather(0.01)
    assert library.next_piece().askers == ("a",)
    for _ in range(5):
        assert library.ask(DIGEST, ((500, 4000),), "a", 0.02)
    assert library.ask(DIGEST, ((1500, 1600),), "b", 0.02)
    found = [(start, end, askers) for _, start, end, askers in pieces(library, 1.0)]
    assert found == [(1000, 2000, ("a", "b")), (2000, 3000, ("a",)), (500, 1000, ("a",)), (3000, 4000, ("a",))]


def test_a_device_gets_pieces_as_small_as_it_asks_for(library):
    library.payload_bytes = 4096 + HEADER_BYTES
    library.ask(DIGEST, ((0, 4096),), "a", 0.0)
    library.ask(OTHER, ((0, 5),), "a", 0.0, 1)
    assert [end - start for _, start, end, _ in pieces(library, 1.0)] == [4096, 5]
    library.ask(DIGEST, ((0, 5120),), "a", 0.0, 2000)
    assert [end - start for _, start, end, _ in pieces(library, 1.0)] == [2000, 2000, 1120]
    library.ask(DIGEST, ((0, 5120),), "a", 0.0, 1)  # but not as small as anybody likes
    library.ask(DIGEST, ((0, 5120),), "b", 0.0)
    assert [end - start for _, start, end, _ in pieces(library, 1.0)] == [1024] * 5


def test_due_pieces_that_are_too_large_by_now_give_way_to_small_ones(library):
    library.payload_bytes = 4096 + HEADER_BYTES
    library.ask(DIGEST, ((0, 5120),), "a", 0.0)
    library.gather(0.01)
    library.ask(DIGEST, ((0, 1024),), "b", 0.02)
    library.ask(DIGEST, ((0, 5120),), "c", 0.02, 2048)
    found = [(start, end, askers) for _, start, end, askers in pieces(library, 1.0)]
    assert found == [(0, 4096, ("a", "b")), (4096, 5120, ("a", "c")), (0, 2048, ("c",)), (2048, 4096, ("c",))]
    library.ask(DIGEST, ((0, 5120),), "a", 2.0)
    library.gather(3.0)
    library.ask(DIGEST, ((0, 5120),), "a", 4.0, 2048)
    found = [(start, end, askers) for _, start, end, askers in pieces(library, 5.0)]
    assert found == [(4096, 5120, ("a",)), (0, 2048, ("a",)), (2048, 4096, ("a",))]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=6), st.integers(1, 9))
def test_every_byte_that_is_asked_for_is_sent_once_while_it_is_due(tmp_path_factory, asked, size):
    library = Library(tmp_path_factory.mktemp("blobs"), payload_bytes=size + HEADER_BYTES)
    library.put(OTHER, bytes(80))
    for at, (start, length) in enumerate(asked):
        library.ask(OTHER, ((start, start + length),), "a", float(at))
        library.gather(at + 0.5)
    sent = []
    while piece := library.next_piece():
        chunk = decode_chunk(piece.payload, 80)
        sent += range(chunk.offset, chunk.offset + len(chunk.data))
    assert sorted(sent) == sorted({byte for start, length in asked for byte in range(start, start + length)})


def test_only_what_was_asked_for_is_sent(library):
    library.ask(DIGEST, ((10, 20), (4000, 4500)), "a", 0.0)
    library.ask(OTHER, ((0, 5),), "a", 0.0)
    found = pieces(library, 1.0)
    assert found == [(DIGEST, 10, 20, ("a",)), (DIGEST, 4000, 4500, ("a",)), (OTHER, 0, 5, ("a",))]


@pytest.mark.parametrize(
    ("digest", "spans"), [("0" * 64, ((0, 1),)), (DIGEST, ((0, 5121),)), (DIGEST, ()), ("", ((0, 1),))]
)
def test_what_is_not_there_is_not_promised(library, digest, spans):
    assert not library.ask(digest, spans, "a", 0.0)
    assert pieces(library, 1.0) == []


def test_a_blob_that_went_meanwhile_is_passed_over(library):
    library.ask(DIGEST, ((0, 5120),), "a", 0.0)
    library.ask(OTHER, ((0, 5),), "a", 0.0)
    library.gather(1.0)
    library.keep_only({OTHER})
    assert pieces(library, 1.0) == [(OTHER, 0, 5, ("a",))]
    assert not library.ask(DIGEST, ((0, 1),), "a", 2.0)


def test_what_is_there_is_not_written_again(library, tmp_path):
    before = (tmp_path / DIGEST).stat().st_mtime_ns
    library.put(DIGEST, DATA)
    assert (tmp_path / DIGEST).stat().st_mtime_ns == before
    assert (tmp_path / DIGEST).read_bytes() == DATA
