"""Which blobs stay: deltas while they are fewer bytes than a snapshot, and no more than a checkpoint has room for."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from coordinator.learning.checkpoint import ServerState, load_state, save_state
from coordinator.rounds.descent import chain_of, descend, named
from models.archs import spec_of
from models.init import initial
from wire.messages.blob import Downlink, digest_bytes
from wire.messages.chain import decode_chain
from wire.messages.plan import MAX_CHAIN_BYTES, BlobRef
from wire.params import params_digest

SPEC = spec_of("vector-4000", (1,), 1, 1)
THIN = Downlink(({"stage": "topk", "share": 0.01}, {"stage": "levels", "levels": 7}))


def moved(state, by=0.1):
    return {name: values + np.float32(by) for name, values in state.held.items()}


def after(state, down=THIN, number=0, kept=None):
    """Returns the state after a round of descent, without an optimiser; `kept` collects the blobs."""
    kept = {} if kept is None else kept
    model = moved(state)
    held, blobs = descend(model, state, SPEC, down=down, key=(1, "down", number), keep=kept.__setitem__)
    return ServerState(model, held, blobs=blobs)


def start():
    return ServerState(initial(SPEC), initial(SPEC))


def invented(count, size):
    """Returns references of as many deltas, the last of which leads to the first values."""
    names = [digest_bytes(str(number).encode()) for number in range(count)] + [params_digest(initial(SPEC))]
    return tuple(BlobRef(digest_bytes(source.encode()), size, source, target) for source, target in pairwise(names))


def test_without_stages_only_a_snapshot_goes_down():
    one = after(after(start(), Downlink()), Downlink())
    assert params_digest(one.held) == params_digest(one.model)
    assert [ref.source for ref in one.blobs] == [""]
    assert (named(one.blobs), chain_of(one.blobs)) == (one.blobs, b"")


def test_everything_that_is_referred_to_is_kept():
    state, kept = start(), {}
    for number in range(9):
        state = after(state, number=number, kept=kept)
        chain = chain_of(state.blobs)
        assert {ref.digest for ref in state.blobs} | ({digest_bytes(chain)} if chain else set()) <= set(kept)
        assert all(digest_bytes(data) == digest for digest, data in kept.items())
    assert len(named(state.blobs)) == 5
    assert (*decode_chain(chain), *named(state.blobs)) == state.blobs


@pytest.mark.parametrize("size", [1000, 3000, 20_000])
def test_the_oldest_deltas_go_when_all_together_are_no_smaller_than_a_snapshot(size):
    state = after(replace(start(), blobs=invented(40, size)))
    deltas, snapshot = state.blobs[:-1], state.blobs[-1]
    assert sum(ref.size for ref in deltas) < snapshot.size
    assert sum(ref.size for ref in deltas) + size >= snapshot.size
    assert deltas[-1].target == snapshot.target == params_digest(state.held)


def test_the_newest_delta_stays_even_where_it_is_no_smaller():
    wasteful = Downlink(({"stage": "topk", "share": 1.0},))
    state = after(after(start(), wasteful), wasteful)
    assert [bool(ref.source) for ref in state.blobs] == [True, False]


def test_a_very_long_run_can_still_be_saved_and_its_chain_fetched(tmp_path):
    """Tiny deltas of a large net stay worthwhile for thousands of rounds."""
    state = after(replace(start(), blobs=invented(12_000, 1)))
    save_state(tmp_path / "state", state, SPEC)
    assert load_state(tmp_path / "state", SPEC).blobs == state.blobs
    chain = chain_of(state.blobs)
    assert len(chain) <= MAX_CHAIN_BYTES
    assert (*decode_chain(chain), *named(state.blobs)) == state.blobs
