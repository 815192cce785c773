from __future__ import annotations

import sys
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
    assert pieces(library, 0.01) == [(DIGEST, 0, 1000, ("a", "b")), (DIGEST, 1000, 2000, ("a",))]
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
    assert found == [
        (500, 1500, ("a",)),
        (1500, 1600, ("a", "b")),
        (1600, 2600, ("a",)),
        (2600, 3600, ("a",)),
        (3600, 4000, ("a",)),
    ]


def test_devices_take_turns_and_a_device_gets_its_blobs_in_order(library):
    library.ask(DIGEST, ((0, 3000),), "a", 0.0)
    library.ask(OTHER, ((0, 5),), "a", 0.0)
    library.ask(DIGEST, ((3000, 5000),), "b", 0.0)
    found = [(start, askers) for _, start, _, askers in pieces(library, 1.0)]
    assert found == [(0, ("a",)), (3000, ("b",)), (1000, ("a",)), (4000, ("b",)), (2000, ("a",)), (0, ("a",))]


@pytest.fixture
def large(tmp_path):
    """A blob of 8 MiB and some more."""
    library = Library(tmp_path, payload_bytes=1 << 20)
    library.put(OTHER, bytes(LARGE))
    return library


def sizes(library, now_s=1.0):
    library.gather(now_s)
    found = []
    while piece := library.next_piece():
        found.append(len(piece.payload) - HEADER_BYTES)
    return found


LARGE = (8 << 20) + 1
SHARED = 16 * 1024


@pytest.mark.parametrize(("wanted", "most"), [(1, 2049), (3000, 3000), (300_000, 256 * 1024), (0, 256 * 1024)])
def test_a_device_alone_gets_pieces_as_small_as_it_asks_for_but_never_thousands_more(large, wanted, most):
    large.ask(OTHER, ((0, LARGE),), "a", 0.0, wanted)
    found = sizes(large)
    assert (sum(found), max(found), len(found)) == (LARGE, most, -(-LARGE // most))
    assert len(found) <= 4096


def test_no_piece_of_a_small_blob_is_below_a_kibibyte(library):
    library.ask(DIGEST, ((0, 5120),), "a", 0.0, 1)
    assert sizes(library) == [1000] * 5 + [120]  # the broker takes no more
    library.payload_bytes = 1 << 20
    library.ask(DIGEST, ((0, 5120),), "a", 2.0, 1)
    assert sizes(library, 3.0) == [1024] * 5


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_small_pieces_for_one_device_do_not_shred_what_others_wait_for(large, order):
    asks = {"a": ((0, LARGE),), "b": ((0, 4 << 20),)}
    for device in order:
        large.ask(OTHER, asks[device], device, 0.0, 1 if device == "b" else 0)
    found = sizes(large)
    assert (sum(found), found.count(SHARED)) == (LARGE, (4 << 20) // SHARED)
    assert len(found) == (4 << 20) // SHARED + (4 << 20) // (256 * 1024) + 1


def test_small_pieces_come_once_a_device_is_alone(large):
    large.ask(OTHER, ((0, LARGE),), "a", 0.0)
    large.gather(0.5)
    large.ask(OTHER, ((0, SHARED), (LARGE - 1, LARGE)), "b", 0.6, 8192)
    first = large.next_piece()
    assert (len(first.payload) - HEADER_BYTES, first.askers) == (SHARED, ("a", "b"))
    sizes(large)
    large.ask(OTHER, ((0, SHARED),), "b", 2.0, 8192)
    assert sizes(large, 3.0) == [8192, 8192]


def test_a_smaller_piece_is_cut_from_what_was_due_in_large_ones(large):
    large.ask(OTHER, ((0, 1 << 20),), "a", 0.0)
    large.gather(0.5)
    large.next_piece()
    large.ask(OTHER, ((0, 1 << 20),), "a", 0.6, 64 * 1024)
    assert sizes(large) == [64 * 1024] * 16


def calls(do):
    """Returns how many functions are called, of Python's own too."""
    made = []
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, arg: made.append(event) if event in ("call", "c_call") else None)
    try:
        do()
    finally:
        sys.setprofile(before)
    return len(made)


def due_bytes(library, device):
    return sum(end - start for start, end in library.awaited[OTHER].waits[device].spans.held)


def test_a_thousand_repeated_questions_make_nothing_more_due_and_cost_the_same_each(large):
    def again():
        assert large.ask(OTHER, ((0, LARGE),), "a", 0.0, 1)
        large.gather(0.0)

    large.ask(OTHER, ((0, 1),), "a", 0.0, 1)
    alone = calls(again)
    for number in range(200):
        large.ask(OTHER, ((number * 4096, number * 4096 + 1),), f"other-{number}", 0.0, 1)
    again()
    large.gather(0.02)
    assert due_bytes(large, "a") == LARGE
    assert {calls(again) for _ in range(1000)} <= set(range(alone + 1))
    assert due_bytes(large, "a") == LARGE
    assert (len(large.due), large.wants) == (201, {})
    assert sum(sizes(large)) == LARGE


def test_no_device_has_endless_ranges_due(large):
    for first in (0, 2048, 4096):
        assert large.ask(OTHER, tuple((at, at + 1) for at in range(first, first + 2048, 2)), "a", 0.0)
    assert len(large.awaited[OTHER].waits["a"].spans.held) == 1024
    assert sizes(large) == [1] * 1024


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.integers(1, 20), st.booleans()), max_size=9),
    st.integers(1, 9),
)
def test_every_byte_that_is_asked_for_is_sent_once_while_it_is_due(tmp_path_factory, asked, size):
    library = Library(tmp_path_factory.mktemp("blobs"), payload_bytes=size + HEADER_BYTES)
    library.put(OTHER, bytes(80))
    wanted = {device: set() for device in "abc"}
    sent = []

    def send():
        piece = library.next_piece()
        if piece:
            chunk = decode_chunk(piece.payload, 80)
            held = set(range(chunk.offset, chunk.offset + len(chunk.data)))
            assert set(piece.askers) == {device for device in wanted if wanted[device] & held}
            assert held <= set().union(*wanted.values())
            for device in piece.askers:
                wanted[device] -= held
            sent.append(held)
        return piece

    for at, (device, start, length, sends) in enumerate(asked):
        library.ask(OTHER, ((start, start + length),), device, float(at))
        wanted[device] |= set(range(start, start + length))
        library.gather(at + 0.5)
        if sends:
            assert send()
    while send():
        pass
    assert not any(wanted.values())
    assert not (library.awaited or library.wants or library.due)


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
