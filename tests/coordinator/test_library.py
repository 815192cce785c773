from __future__ import annotations

from hashlib import sha256

import pytest

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
