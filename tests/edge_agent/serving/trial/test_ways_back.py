"""What serves after a trial that failed, a damaged file or a lost pointer: see test_slots.py for kills on the way."""

from __future__ import annotations

import pytest

from edge_agent.serving import slots
from edge_agent.serving.slots import Pointer, read_pointer, read_slot, settle
from edge_agent.serving.trial.barred import bar, barred
from tests.edge_agent.serving.stage.held import rot, served, serving, staged
from wire.errors import StateError


def test_only_what_is_on_trial_is_committed_or_rolled_back(tmp_path):
    served(tmp_path, 1)
    for command in (slots.commit, slots.fall_back):
        with pytest.raises(StateError, match=r"slot a in .* is not on trial"):
            command(tmp_path)
    assert serving(tmp_path) == 1


def test_what_is_rolled_back_is_barred_and_its_slot_emptied(tmp_path):
    served(tmp_path, 1)
    slots.switch(tmp_path, staged(tmp_path, 2))
    slots.fall_back(tmp_path)
    assert barred(tmp_path) == ("2" * 64,)
    assert read_slot(tmp_path, "b") is None


def test_what_falls_back_for_a_passing_reason_is_not_barred(tmp_path):
    served(tmp_path, 1)
    slots.switch(tmp_path, staged(tmp_path, 2))
    slots.fall_back(tmp_path, lasting=False)
    assert (serving(tmp_path), barred(tmp_path), read_slot(tmp_path, "b")) == (1, (), None)


def test_falling_back_finds_whatever_proved_itself(tmp_path):
    served(tmp_path, 1)
    slots.switch(tmp_path, staged(tmp_path, 2))
    (tmp_path / "pointer.json").write_text('{"serving": "b", "trying": true}')
    assert slots.fall_back(tmp_path) == Pointer("a")


def test_without_a_pointer_what_proved_itself_is_not_overwritten(tmp_path):
    served(tmp_path, 1)
    (tmp_path / "pointer.json").unlink()
    assert staged(tmp_path, 2) == "b"
    settle(tmp_path)
    assert serving(tmp_path) == 1


@pytest.mark.parametrize("previous", ["", "a"])
def test_a_pin_outlives_a_trial_however_it_ends(tmp_path, previous):
    served(tmp_path, 1)
    staged(tmp_path, 2)
    trial = f'{{"serving": "b", "trying": true, "previous": "{previous}", "pinned": 1}}'
    (tmp_path / "pointer.json").write_text(trial)
    assert slots.commit(tmp_path).pinned == 1
    (tmp_path / "pointer.json").write_text(trial)
    assert slots.fall_back(tmp_path) == Pointer("a", pinned=1)


def test_a_pin_outlives_a_first_model_that_has_to_go_and_a_damaged_file(tmp_path):
    slots.switch(tmp_path, staged(tmp_path, 1))
    (tmp_path / "pointer.json").write_text('{"serving": "a", "trying": true, "pinned": 7}')
    assert slots.fall_back(tmp_path).pinned == 7
    assert serving(tmp_path) is None
    slots.pin(tmp_path, 0)
    served(tmp_path, 2)
    served(tmp_path, 3)
    slots.pin(tmp_path, 3)
    rot(tmp_path, read_pointer(tmp_path).serving)
    assert settle(tmp_path)[0].pinned == 3
    assert serving(tmp_path) == 2


def test_what_never_proved_itself_takes_a_damaged_ones_place_on_trial_only(tmp_path):
    served(tmp_path, 1)
    staged(tmp_path, 2)
    rot(tmp_path, "a")
    pointer, what = settle(tmp_path)
    assert pointer == Pointer("b", True)
    assert what == "slot a is damaged, so what slot b holds is tried"


def test_what_was_rolled_back_does_not_take_a_damaged_ones_place(tmp_path):
    served(tmp_path, 1)
    staged(tmp_path, 2)
    bar(tmp_path, "2" * 64)
    rot(tmp_path, "a")
    pointer, what = settle(tmp_path)
    assert pointer == Pointer("a")
    assert what == "slot a is damaged, and what slot b holds was rolled back"
    slots.switch(tmp_path, "b")
    slots.fall_back(tmp_path)
    assert settle(tmp_path) == (None, "")


def test_a_lost_pointer_brings_nothing_back_that_a_person_rolled_back_unless_it_is_all_there_is(tmp_path):
    served(tmp_path, 1)
    served(tmp_path, 2)
    slots.go_back(tmp_path)
    (tmp_path / "pointer.json").unlink()
    settle(tmp_path)
    assert serving(tmp_path) == 1
    rot(tmp_path, "a")
    settle(tmp_path)
    assert serving(tmp_path) == 2


@pytest.mark.parametrize("emptied", [True, False])
def test_where_both_slots_are_damaged_during_a_trial_the_next_model_is_still_taken(tmp_path, emptied):
    served(tmp_path, 1)
    slots.switch(tmp_path, staged(tmp_path, 2))
    rot(tmp_path, "a")
    rot(tmp_path, "b")
    if emptied:
        (tmp_path / "b" / "facts.json").unlink()
    assert settle(tmp_path)[1] == "neither slot holds a whole model"
    assert served(tmp_path, 3) == Pointer("a", previous="b")
    assert serving(tmp_path) == 3


def test_rolling_back_ends_at_the_next_start_if_it_was_interrupted(tmp_path):
    served(tmp_path, 1)
    slots.switch(tmp_path, staged(tmp_path, 2))
    bar(tmp_path, "2" * 64)
    assert settle(tmp_path) == (Pointer("a"), "the agent ended while it was rolled back")
