"""Portions: the first bytes of a payload, in any order, over restarts, longer or shorter than the time before."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wire.bits import Bits
from wire.messages.blob import digest_bytes
from wire.pieces.assembly import Assembly
from wire.pieces.chunks import Spans, cut_spans, decode_chunk, encode_chunk

WHOLE = Bits(1).words(30).tobytes()
DIGEST = digest_bytes(WHOLE)
PIECES = list(cut_spans([(0, len(WHOLE))], 37))


def piece(start: int, end: int, whole: bytes = WHOLE):
    return decode_chunk(encode_chunk(DIGEST, len(whole), start, whole[start:end]), len(whole))


def opened(folder, size: int) -> Assembly:
    return Assembly.open(folder, DIGEST, size, portion=True)


def take(assembly: Assembly, start: int, end: int) -> None:
    chunk = assembly.within(piece(start, end))
    if chunk is not None:
        assembly.put(chunk)


@given(
    steps=st.lists(
        st.tuples(st.integers(1, len(WHOLE)), st.lists(st.sampled_from(PIECES), max_size=5)), min_size=1, max_size=5
    )
)
def test_what_is_held_is_right_whatever_came_under_whatever_size(tmp_path_factory, steps):
    folder, sure = tmp_path_factory.mktemp("parts"), Spans(len(WHOLE))
    for size, spans in steps:
        assembly = opened(folder, size)
        for start, end in spans:
            take(assembly, start, end)
            if start < size:
                sure.add(start, min(end, size))
        for start, end in opened(folder, size).spans.held:
            assert sure.covers(start, end) and end <= size
            assert assembly.part.read_bytes()[start:end] == WHOLE[start:end]
    size = max(size for size, _ in steps)
    assembly = opened(folder, size)
    for start, end in assembly.spans.missing():
        take(assembly, start, end)
    assert assembly.spans.complete and assembly.finish(folder / "none")
    assert assembly.part.read_bytes()[:size] == WHOLE[:size]
    assert not (folder / "none").exists()


def test_a_longer_portion_lacks_only_the_rest_and_a_shorter_one_nothing(tmp_path):
    take(opened(tmp_path, 100), 0, 150)
    assert (tmp_path / f"{DIGEST}.part").stat().st_size == 100
    assert opened(tmp_path, 200).spans.missing() == ((100, 200),)
    assert opened(tmp_path, 40).spans.complete
    assert opened(tmp_path, 200).spans.missing() == ((100, 200),), "a shorter one forgets nothing"


def test_what_is_no_part_of_it_or_is_here_is_passed_over(tmp_path):
    assembly = opened(tmp_path, 100)
    assert assembly.within(piece(100, 137)) is None
    take(assembly, 0, 50)
    assert assembly.within(piece(0, 37)) is None
    last = assembly.within(piece(74, 111))
    assert (last.total, bytes(last.data)) == (100, WHOLE[74:100])


def test_a_piece_of_a_payload_that_is_shorter_is_passed_over(tmp_path):
    assembly, shorter = opened(tmp_path, 100), piece(0, 37, WHOLE[:90])
    assert not assembly.fits(shorter)
    assert assembly.within(shorter) is None
    assert assembly.fits(piece(0, 37))


def test_a_piece_of_a_whole_payload_has_the_very_size(tmp_path):
    assembly = Assembly.open(tmp_path, DIGEST, len(WHOLE))
    assert assembly.within(piece(0, 37)) == piece(0, 37)
    assert assembly.within(piece(0, 37, WHOLE[:90])) is None
