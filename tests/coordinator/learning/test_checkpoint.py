from __future__ import annotations

import numpy as np
import pytest

from coordinator.learning.checkpoint import ServerState, load_state, save_state
from models.archs import spec_of
from models.init import initial
from wire.errors import StateError
from wire.messages.blob import snapshot_blob
from wire.params import params_digest

SPEC = spec_of("mlp-3", (1, 2, 2), 2, 1)


def shifted(by):
    return {name: value + np.float32(by) for name, value in initial(SPEC).items()}


FULL = ServerState(
    model=shifted(1),
    held=shifted(2),
    slots={"m": shifted(3), "v": shifted(4)},
    blobs=(snapshot_blob(shifted(2), SPEC)[0], snapshot_blob(shifted(1), SPEC)[0]),
)


def digests(state):
    slots = {name: params_digest(slot) for name, slot in state.slots.items()}
    return params_digest(state.model), params_digest(state.held), slots, state.blobs


@pytest.mark.parametrize(
    "state",
    [
        FULL,
        ServerState(shifted(1), shifted(1)),
        ServerState(shifted(1), shifted(2)),
        ServerState(shifted(1), shifted(1), FULL.slots),
    ],
    ids=["everything", "one model", "two models", "one model and slots"],
)
def test_comes_back_as_it_was_saved(tmp_path, state):
    save_state(tmp_path / "0.state", state, SPEC)
    back = load_state(tmp_path / "0.state", SPEC)
    assert digests(back) == digests(state)
    assert list(back.model) == [tensor.name for tensor in SPEC.trainable]
    assert [path.name for path in tmp_path.iterdir()] == ["0.state"]


def test_a_model_that_is_held_as_it_is_is_written_once(tmp_path):
    save_state(tmp_path / "one", ServerState(shifted(1), shifted(1)), SPEC)
    save_state(tmp_path / "two", ServerState(shifted(1), shifted(2)), SPEC)
    sizes = [(tmp_path / name).stat().st_size for name in ("one", "two")]
    assert abs(sizes[1] - sizes[0] - 4 * SPEC.count) <= 1  # "true" for "false"


def test_the_same_state_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        save_state(tmp_path / name, FULL, SPEC)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_every_damaged_byte_is_noticed(tmp_path):
    path = tmp_path / "0.state"
    save_state(path, FULL, SPEC)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(StateError, match=r"0\.state"):
            load_state(path, SPEC)


@pytest.mark.parametrize("length", [0, 1, 30, 200])
def test_a_file_that_was_cut_short(tmp_path, length):
    path = tmp_path / "0.state"
    save_state(path, FULL, SPEC)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StateError, match="cannot be read"):
        load_state(path, SPEC)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(StateError, match="cannot be read"):
        load_state(tmp_path / "0.state", SPEC)


def test_the_checkpoint_of_another_model(tmp_path):
    save_state(tmp_path / "0.state", FULL, SPEC)
    with pytest.raises(StateError):
        load_state(tmp_path / "0.state", spec_of("mlp-5", (1, 2, 2), 2, 1))
