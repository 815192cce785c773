from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from hashlib import sha256

import numpy as np
import pytest

from coordinator.library import Library
from edge_agent.fetch import Fetch, fetch_blobs, held_models, plan_fetch, prune
from models.init import initial
from tests.edge_agent.boards import echo_spec, keep, plan, spec_bytes
from wire.bits import Bits
from wire.errors import WireError
from wire.messages.blob import Downlink, delta_blob, snapshot_blob
from wire.params import params_digest
from wire.pieces.assembly import Assembly
from wire.pieces.chunks import HEADER_BYTES, Chunk, decode_chunk

SPEC = echo_spec(2000)
FOUR_BITS = Downlink(({"stage": "levels", "levels": 7},))


def chain(rounds):
    """Returns the models of some rounds, the deltas between them, and a snapshot of the last."""
    held, models, deltas = initial(SPEC), [initial(SPEC)], []
    for number in range(rounds):
        wanted = {name: value + np.float32(0.1 * (number + 1)) for name, value in held.items()}
        ref, data, held = delta_blob(wanted, held, SPEC, FOUR_BITS, ("down", number))
        models.append(held)
        deltas.append((ref, data))
    return models, deltas, snapshot_blob(held, SPEC)


MODELS, DELTAS, SNAPSHOT = chain(5)
NEWEST = plan(SPEC, base=params_digest(MODELS[-1]), blobs=(*(ref for ref, _ in DELTAS), SNAPSHOT[0]))


def pieces(digest, data, size=700):
    return [Chunk(digest, len(data), at, memoryview(data)[at : at + size]) for at in range(0, len(data), size)]


def give(fetch, data, digest):
    for piece in pieces(digest, data):
        fetch.take(piece, 1.0)


def snapshot_fetch(folder):
    """Returns a fetch that lacks the snapshot only."""
    keep(folder, spec_bytes(SPEC))
    return plan_fetch(replace(NEWEST, blobs=(SNAPSHOT[0],)), folder)


def spans_of(fetch, now_s):
    (ask,) = fetch.questions(now_s)
    return ask.spans


def test_the_first_round_needs_the_spec_only(tmp_path):
    fetch = plan_fetch(plan(SPEC), tmp_path)
    assert (fetch.path, set(fetch.wanted)) == ((), {plan(SPEC).spec})
    give(fetch, spec_bytes(SPEC), plan(SPEC).spec)
    assert fetch.complete
    assert (tmp_path / plan(SPEC).spec).read_bytes() == spec_bytes(SPEC)
    assert fetch.fetched_bytes == len(spec_bytes(SPEC))


def test_deltas_where_they_are_fewer_bytes_than_the_snapshot(tmp_path):
    (tmp_path / f"{params_digest(MODELS[3])}.model").write_bytes(b"")
    assert plan_fetch(NEWEST, tmp_path).path == tuple(ref.digest for ref, _ in DELTAS[3:])


def test_from_the_seed_too_if_that_is_shorter(tmp_path):
    sizes = sum(ref.size for ref, _ in DELTAS)
    assert sizes < SNAPSHOT[0].size
    assert plan_fetch(NEWEST, tmp_path).path == tuple(ref.digest for ref, _ in DELTAS)


def test_the_snapshot_where_the_chain_is_broken_or_longer(tmp_path):
    later = replace(NEWEST, blobs=NEWEST.blobs[1:])
    assert plan_fetch(later, tmp_path).path == (SNAPSHOT[0].digest,)
    dear = replace(NEWEST, blobs=tuple(replace(ref, size=ref.size * 9) if ref.source else ref for ref in NEWEST.blobs))
    assert plan_fetch(dear, tmp_path).path == (SNAPSHOT[0].digest,)


def test_what_is_there_already_is_not_fetched_and_costs_nothing(tmp_path):
    keep(tmp_path, spec_bytes(SPEC))
    keep(tmp_path, SNAPSHOT[1])
    fetch = plan_fetch(NEWEST, tmp_path)
    assert (fetch.path, fetch.complete, fetch.fetched_bytes) == ((SNAPSHOT[0].digest,), True, 0)


def test_a_model_that_is_held_is_the_whole_way(tmp_path):
    (tmp_path / f"{NEWEST.base}.model").write_bytes(b"")
    assert plan_fetch(NEWEST, tmp_path).path == ()
    assert held_models(tmp_path) == [NEWEST.base]


def test_no_way_is_an_error(tmp_path):
    with pytest.raises(WireError, match="E-BLOB"):
        plan_fetch(replace(NEWEST, blobs=NEWEST.blobs[1:3]), tmp_path)


def test_pieces_in_any_order_and_twice(tmp_path):
    fetch = plan_fetch(replace(NEWEST, blobs=(SNAPSHOT[0],)), tmp_path)
    mixed = pieces(SNAPSHOT[0].digest, SNAPSHOT[1])
    for piece in [*mixed[::-1], *mixed[:2]]:
        fetch.take(piece, 1.0)
    assert SNAPSHOT[0].digest not in fetch.wanted
    assert (tmp_path / SNAPSHOT[0].digest).read_bytes() == SNAPSHOT[1]


def test_wrong_bytes_start_again_from_nothing(tmp_path):
    fetch = plan_fetch(replace(NEWEST, blobs=(SNAPSHOT[0],)), tmp_path)
    wrong = bytearray(SNAPSHOT[1])
    wrong[1000] ^= 1
    give(fetch, bytes(wrong), SNAPSHOT[0].digest)
    part = fetch.wanted[SNAPSHOT[0].digest]
    assert part.spans.missing() == ((0, len(wrong)),)
    assert not (tmp_path / SNAPSHOT[0].digest).exists()
    give(fetch, SNAPSHOT[1], SNAPSHOT[0].digest)
    assert SNAPSHOT[0].digest not in fetch.wanted


def test_a_piece_of_another_size_and_a_foreign_one_are_passed_over(tmp_path):
    fetch = plan_fetch(plan(SPEC), tmp_path)
    fetch.take(Chunk(plan(SPEC).spec, 5, 0, memoryview(b"hello")), 1.0)
    fetch.take(Chunk("0" * 64, 5, 0, memoryview(b"hello")), 1.0)
    assert [path.name for path in tmp_path.iterdir()] == []
    assert fetch.fetched_bytes == 0


def test_nothing_but_pieces_of_another_size_are_an_error(tmp_path):
    fetch = plan_fetch(replace(NEWEST, blobs=(SNAPSHOT[0],)), tmp_path)
    odd = Chunk(SNAPSHOT[0].digest, 5, 0, memoryview(b"hello"))
    for _ in range(8):
        fetch.take(odd, 1.0)
    fetch.take(pieces(SNAPSHOT[0].digest, SNAPSHOT[1])[0], 1.0)
    for _ in range(8):
        fetch.take(odd, 1.0)
    with pytest.raises(WireError, match=r"E-BLOB: blob .* is a payload of 5 bytes, "):
        fetch.take(odd, 1.0)
    give(fetch, SNAPSHOT[1], SNAPSHOT[0].digest)
    assert SNAPSHOT[0].digest not in fetch.wanted


def test_a_restart_asks_just_for_the_rest(tmp_path):
    first = plan_fetch(replace(NEWEST, blobs=(SNAPSHOT[0],)), tmp_path)
    for piece in pieces(SNAPSHOT[0].digest, SNAPSHOT[1])[:4]:
        first.take(piece, 1.0)
    again = plan_fetch(replace(NEWEST, blobs=(SNAPSHOT[0],)), tmp_path)
    asked = {ask.digest: ask.spans for ask in again.questions(0.0)}
    assert asked[SNAPSHOT[0].digest] == ((2800, len(SNAPSHOT[1])),)
    assert asked[NEWEST.spec] == ((0, NEWEST.spec_bytes),)


def test_silence_asks_ever_more_rarely_until_something_comes(tmp_path):
    fetch, now_s, waits = plan_fetch(NEWEST, tmp_path), 0.0, []
    for _ in range(7):
        waits.append(fetch.overdue_s(now_s))
        now_s += waits[-1]
        assert len(fetch.questions(now_s)) == len(fetch.wanted)
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    fetch.take(pieces(SNAPSHOT[0].digest, SNAPSHOT[1])[0], now_s)
    assert fetch.overdue_s(now_s) == 60.0


def test_the_next_piece_may_take_as_long_as_the_last_one_and_some_more(tmp_path):
    fetch = snapshot_fetch(tmp_path)
    fetch.questions(0.0)
    waits = []
    for now_s, piece in zip((0.1, 5.1, 5.2, 100.0), pieces(SNAPSHOT[0].digest, SNAPSHOT[1]), strict=False):
        fetch.take(piece, now_s)
        waits.append(fetch.overdue_s(now_s))
    assert waits == [2.0, 20.0, 2.0, 60.0]


def test_all_is_asked_for_once_and_then_a_few_bytes_until_they_overtake_the_rest(tmp_path):
    fetch, (ref, data) = snapshot_fetch(tmp_path), SNAPSHOT
    assert spans_of(fetch, 0.0) == ((0, len(data)),)
    assert spans_of(fetch, 2.0) == spans_of(fetch, 6.0) == ((0, 512),)
    fetch.take(Chunk(ref.digest, len(data), 0, memoryview(data)[:1024]), 9.0)
    fetch.take(Chunk(ref.digest, len(data), 0, memoryview(data)[:512]), 9.1)  # behind the rest: it was only slow
    assert fetch.overdue_s(9.1) == 2.0
    assert spans_of(fetch, 12.0) == ((1024, 1536),)
    fetch.take(Chunk(ref.digest, len(data), 1024, memoryview(data)[1024:1536]), 13.0)  # before the rest: that is lost
    assert fetch.overdue_s(13.0) <= 0
    assert spans_of(fetch, 13.0) == ((1536, len(data)),)
    assert spans_of(fetch, 15.0) == ((1536, 2048),)


def test_what_was_overtaken_is_asked_for_alone(tmp_path):
    """With n blobs that are lost a device must not ask n times n times."""
    fetch = fetch_blobs(tmp_path, {f"{number:064x}": 5000 for number in range(100)})
    assert [len(fetch.questions(now_s)) for now_s in (0.0, 2.0)] == [100, 100]
    for number in range(100):
        digest = f"{number:064x}"
        fetch.take(Chunk(digest, 5000, 0, memoryview(bytes(512))), 3.0)
        assert fetch.overdue_s(3.0) <= 0
        assert [(ask.digest, ask.spans) for ask in fetch.questions(3.0)] == [(digest, ((512, 5000),))]
    assert len(fetch.questions(9.0)) == 100


def test_after_a_cut_all_is_asked_for_again_in_smaller_pieces(tmp_path):
    fetch, sizes = snapshot_fetch(tmp_path), []
    for _ in range(9):
        (ask,) = fetch.questions(0.0)
        assert ask.spans == ((0, len(SNAPSHOT[1])),)
        sizes.append(ask.piece_bytes)
        fetch.cut()
        fetch.cut()  # an attempt to connect that failed
    assert sizes == [0, 32768, 16384, 8192, 4096, 2048, 1024, 1024, 1024]
    assert fetch.overdue_s(0.0) == 2.0


@dataclass
class SlowLink:
    """A coordinator's blobs behind a link of 8 kB/s, on a clock of its own; a cut loses what the broker has queued.

    Whatever is published waits in the broker, as for a real subscriber. `passed` counts what came over the link.
    """

    fetch: Fetch
    library: Library
    now_s: float = 0.0
    passed: int = 0
    queue: deque[bytes] = field(default_factory=deque)

    def ask(self):
        for ask in self.fetch.questions(self.now_s):
            assert self.library.ask(ask.digest, ask.spans, "slow", self.now_s, ask.piece_bytes)
        self.library.gather(self.now_s + 1.0)
        while piece := self.library.next_piece():
            self.queue.append(piece.payload)

    def run(self, most_bytes=1 << 40):
        """Lets so many bytes pass, in order, then cuts the link."""
        while not self.fetch.complete and most_bytes > 0:
            if not self.queue:
                self.now_s += max(0.0, self.fetch.overdue_s(self.now_s))
                self.ask()
            piece = self.queue.popleft()
            arrives_s, size = self.now_s + len(piece) / 8000.0, min(most_bytes, len(piece))
            while (due_s := self.fetch.overdue_s(self.now_s)) < arrives_s - self.now_s:
                self.now_s += max(0.0, due_s)
                self.ask()
            self.now_s, self.passed, most_bytes = arrives_s, self.passed + size, most_bytes - size
            if size == len(piece):
                self.fetch.take(decode_chunk(piece, 1 << 30), self.now_s)
        if self.fetch.complete:
            self.passed += sum(map(len, self.queue))  # nobody takes back what the broker has
        self.queue.clear()
        self.fetch.cut()


@pytest.mark.parametrize(("piece_kib", "cuts"), [(128, ()), (256, ()), (64, (20_000,) * 5), (16, (90_000, 1, 50_000))])
def test_a_slow_link_carries_hardly_more_than_the_blob(tmp_path, piece_kib, cuts):
    data = Bits.of("slow").words(50_000).tobytes()
    library = Library(tmp_path / "blobs", payload_bytes=piece_kib * 1024 + HEADER_BYTES)
    for folder in ("blobs", "store"):
        (tmp_path / folder).mkdir()
    digest = sha256(data).hexdigest()
    library.put(digest, data)
    link = SlowLink(
        Fetch(tmp_path / "store", (), {digest: Assembly.open(tmp_path / "store", digest, len(data))}), library
    )
    for most_bytes in (*cuts, 1 << 40):
        link.ask()
        link.run(most_bytes)
    assert (tmp_path / "store" / digest).read_bytes() == data
    assert len(data) < link.passed < 1.25 * len(data)


def test_prune_keeps_what_is_named_with_and_without_suffix(tmp_path):
    for name in ("a" * 64, "b" * 64, f"{'a' * 64}.model", f"{'c' * 64}.part", f"{'d' * 64}.model"):
        (tmp_path / name).write_bytes(b"")
    prune(tmp_path, ["a" * 64, "d" * 64])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a" * 64, f"{'a' * 64}.model", f"{'d' * 64}.model"]
    prune(tmp_path, ())
    assert not list(tmp_path.iterdir())
